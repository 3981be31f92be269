"""The frame bus, read on the board by a second process."""

import json
from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.counter import Digits
from mos_hil.recorder import HOME, Recorder, configuration
from mos_hil.vivid import HEIGHT, RATE, WIDTH, Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh"])


def test_another_process_reads_live_frames(recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 20)
    before = recorder.lens("road")["stored"]
    read = json.loads(recorder.do(f"frames road --seconds 6 --json --dump {HOME}/live.png"))
    meanwhile = recorder.lens("road")["stored"] - before
    figures.update(delivered=read["delivered"], replaced=read["replaced"], revoked=read["revoked"], latency_us=read["latency_us"], stored_meanwhile=meanwhile)
    assert (read["format"], read["width"], read["height"]) == ("NV12", WIDTH, HEIGHT)
    # A busy emulated processor may lose some; a bus that gives one and stops does not do.
    assert read["delivered"] >= max(3, min(2 * RATE, meanwhile // 3))
    recorder.board.get(f"{HOME}/live.png", tmp_path / "live.png")
    picture = film.look(tmp_path / "live.png")
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    # It is a picture of this camera's, and of now: its number is among those that come to be recorded.
    (number,) = digits.read_file(tmp_path / "live.png")
    figures["number"] = number
    assert number is not None and number >= before // 2
    # Recording goes on meanwhile.
    assert recorder.lens("road")["stored"] > before
