"""The recorded frames of a lens, read on the host: every file decoded, every number read from its picture."""

from pathlib import Path

from . import film
from .counter import Digits
from .judge import Frame, Gap
from .recorder import Recorder
from .vivid import INTERVAL


def frames(recorder: Recorder, segments: list[dict], digits: Digits, folder: Path) -> list[Frame]:
    """Fails if a file is empty, does not decode to its end, or shows a frame without its number."""
    found = []
    for segment in segments:
        file = recorder.fetch(segment, folder)
        times, pictures = film.look(file).times, digits.read_pictures(file)
        assert len(times) == len(pictures), f"{segment['id']}: {len(times)} frames listed, {len(pictures)} decoded"
        for time, (number, shown_ms) in zip(times, pictures):
            assert number is not None, f"{segment['id']}: no number in the picture at {time} s"
            found.append(Frame(number, segment["start_ts"] / 1e6 + time, shown_ms))
    return found


def gaps(listed: dict) -> list[Gap]:
    return [Gap(g["start_ts"] / 1e6, g["end_ts"] / 1e6, g["cause"]) for g in listed["gaps"]]


def of_run(segments: list[dict], run: int) -> list[dict]:
    return [s for s in segments if s["id"].rsplit("-", 2)[1] == str(run)]


def assert_told_once(recorder: Recorder, cause: str, figures: dict, folder: Path) -> None:
    """One gap tells the end by its cause, and what is closed decodes."""
    told = [g for g in recorder.gaps("road") if g["cause"] == cause]
    figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in told]
    assert len(told) == 1
    for segment in [s for s in recorder.segments("road") if s["state"] != "open"]:
        film.look(recorder.fetch(segment, folder))


def holes(listed: dict, until: float | None = None) -> list[str]:
    """Holes of more than two frames between segments and gaps in their order, up to a time, or to the end of the last closed
    segment: while a lens records, what it tells of the last second is in motion."""
    segments = listed["segments"]
    last = max((s["end_ts"] for s in segments if s["state"] == "closed"), default=0) if until is None else until * 1e6
    spans = [(s["start_ts"], s["end_ts"], s["id"]) for s in segments]
    spans += [(g["start_ts"], g["end_ts"], f"gap {g['cause']}") for g in listed["gaps"]]
    spans = sorted(span for span in spans if span[0] <= last)
    found, reached, before = [], spans[0][1], spans[0][2]
    for start, end, name in spans[1:]:
        if start - reached > 2 * INTERVAL * 1e6:
            found.append(f"{(start - reached) / 1e6:.3f} s between {before} and {name}")
        if end > reached:
            reached, before = end, name
    return found
