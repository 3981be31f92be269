"""A camera records, clips and snapshots; the host reads the numbers that vivid wrote into its pictures."""

import json
from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.counter import Digits
from mos_hil.footage import frames, gaps
from mos_hil.judge import power_cut
from mos_hil.recorder import ARCHIVE, HOME, Recorder, configuration
from mos_hil.vivid import HEIGHT, INTERVAL, WIDTH, Vivid

# Capture times are rounded to ticks of 1/90000 s: a frame that is one tick off an asked time is at it.
EDGE = 1.5 / 90_000

pytestmark = pytest.mark.lg_feature(["vivid", "ssh"])


def test_every_frame_is_recorded_clipped_and_pictured(
    recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path
) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    closed = recorder.wait_closed("road", 3)[:3]
    # The commands tell what the API does.
    assert json.loads(recorder.do("segments --lens road --json"))["segments"][:3] == closed
    assert "road" in recorder.do("status")
    found = frames(recorder, closed, digits, tmp_path)
    # As if cut with the last frame: no stretch of frames may be missing without a gap.
    verdict = power_cut(found, gaps(recorder.listed("road")), found[-1].at, INTERVAL, 0)
    assert verdict.faults == []
    figures.update(dropped=recorder.lens("road")["dropped"], gaps=recorder.gaps("road"))
    figures.update(frames=len(found), missing=verdict.missing, untold_ms=verdict.untold_ms, first_number=found[0].number)

    segment = closed[1]
    of_segment = frames(recorder, [segment], digits, tmp_path)
    recorder.do(f"clip {segment['id']} --from 1.0 --to 2.5 -o {HOME}/clip.mp4")
    recorder.board.get(f"{HOME}/clip.mp4", tmp_path / "clip.mp4")
    shown = digits.read_file(tmp_path / "clip.mp4")
    start = segment["start_ts"] / 1e6
    # A frame is shown from its time to the next: the one under way at 1.0 s belongs to the clip.
    under_way = [f.number for f in of_segment if f.at - start <= 1.0 + EDGE][-1]
    wanted = [f.number for f in of_segment if f.number >= under_way and f.at - start < 2.5 - EDGE]
    assert shown == wanted

    recorder.do(f"snapshot {segment['id']} --at 0 -o {HOME}/picture.jpg")
    recorder.board.get(f"{HOME}/picture.jpg", tmp_path / "picture.jpg")
    picture = film.look(tmp_path / "picture.jpg")
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert digits.read_file(tmp_path / "picture.jpg") == [of_segment[0].number]

    recorder.stop()
    figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
