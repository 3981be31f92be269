"""libcamera's cameras are listed and recorded."""

import pytest
from mos_hil import film
from mos_hil.recorder import Recorder, configuration

pytestmark = pytest.mark.lg_feature(["libcamera", "ssh"])


def test_cameras_are_listed_as_libcamera_lists_them(recorder: Recorder, figures: dict) -> None:
    listed = recorder.board.run("cam -l 2> /dev/null | sed -n 's/.*(\\(.*\\))$/\\1/p'").split()
    assert listed, "libcamera itself lists no camera"
    recorder.start(configuration({}))
    devices = recorder.ask("capture/devices")
    figures["devices"] = found = [d["id"] for d in devices["devices"] if d["transport"] == "libcamera"]
    assert set(found) == set(listed)


def test_a_camera_streams(recorder: Recorder, figures: dict, tmp_path) -> None:
    camera = recorder.board.run("cam -l 2> /dev/null | sed -n 's/.*(\\(.*\\))$/\\1/p'").split()[0]
    recorder.start(configuration({"road": f"libcamera:{camera}?width=320&height=240&fps=10"}))
    recorder.wait_stored("road", 60)
    segment = recorder.wait_closed("road", seconds=60)[0]
    seen = film.look(recorder.fetch(segment, tmp_path))
    figures.update(picture=f"{seen.width}x{seen.height}", frames=len(seen.times))
    assert (seen.width, seen.height) == (320, 240)
