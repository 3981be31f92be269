"""The frame bus, read on the board by a second process."""

import json
from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.counter import Digits
from mos_hil.footage import frames
from mos_hil.judge import since_opened
from mos_hil.recorder import HOME, Recorder, configuration
from mos_hil.vivid import HEIGHT, INTERVAL, WIDTH, Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh"])

SECONDS = 6


def seen(recorder: Recorder) -> int:
    """Pictures that the camera has delivered: not those that it skipped, which count as captured and dropped."""
    lens = recorder.lens("road")
    return lens["captured"] - lens["dropped"].get("camera_skipped", 0)


def test_another_process_reads_live_frames(recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path) -> None:
    board = recorder.board
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 20)
    before, began = seen(recorder), board.clock()
    read = json.loads(recorder.do(f"frames road --seconds {SECONDS} --json --dump {HOME}/live.png"))
    ended, delivered = board.clock(), seen(recorder) - before
    counts = {key: read[key] for key in ("delivered", "replaced", "revoked")}
    figures.update(**counts, latency_us=read["latency_us"], camera_delivered=delivered, window_seconds=round(ended - began, 1))
    assert (read["format"], read["width"], read["height"]) == ("NV12", WIDTH, HEIGHT)
    # What a reader does not get is told to it as replaced or revoked. It reads for a part of the window, in which an emulated
    # processor is not always as busy: half of its share at least.
    share = delivered * SECONDS / (ended - began)
    assert sum(counts.values()) >= share / 2, f"{share:.0f} pictures came while it read"
    # It is a stream, not one picture and no more.
    assert read["delivered"] >= 3

    # The picture is one of this camera's and of now: it lies between what was recorded before and after.
    board.get(f"{HOME}/live.png", tmp_path / "live.png")
    picture = film.look(tmp_path / "live.png")
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    (number,) = digits.read_file(tmp_path / "live.png")
    figures["number"] = number
    recorder.wait_for("footage from behind it", 60, lambda: any(s["end_ts"] / 1e6 > ended + INTERVAL for s in recorder.closed("road")))
    recorded = since_opened(frames(recorder, recorder.closed("road"), digits, tmp_path), INTERVAL)
    first = max(f.number for f in recorded if f.at <= began)
    last = min(f.number for f in recorded if f.at >= ended)
    figures["numbers_meanwhile"] = [first, last]
    assert number is not None and first <= number <= last
    # Recording goes on meanwhile.
    assert any(began < f.at < ended for f in recorded)
