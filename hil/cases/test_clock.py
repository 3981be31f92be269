"""A board without the time: it boots in 1970 behind an archive of today, records, and is told the time later."""

from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.counter import Digits
from mos_hil.footage import frames
from mos_hil.judge import DRIFT_SECONDS, drift
from mos_hil.recorder import ARCHIVE, Recorder, configuration
from mos_hil.vivid import INTERVAL, Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "data-disk", "clock", "clock-chip"])

DAY = 86_400


def test_a_boot_in_1970_costs_nothing_and_is_put_right(
    board: Board, recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path
) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 30)
    recorder.wait_closed("road")
    recorder.stop()
    kept = recorder.check(ARCHIVE)
    now = int(board.run("date +%s"))
    board.cut_power()
    try:
        board.boot(machine_args="-rtc base=1970-01-01T00:05:00", told=False)
        assert int(board.run("date +%s")) < DAY, "the board does not boot in 1970"
        vivid.load()
        recorder.start(configuration({"road": vivid.source()}))
        recorder.wait_recovered()
        recorder.wait_stored("road", 30)
        before = recorder.segments("road")
        figures.update(before_first_utc=before[0]["start_ts"] / 1e6, segments=len(before))
        assert recorder.ask("health")["storage"]["removed_segments"] == 0
        # A day later than the footage before, as a network's time would tell.
        board.run(f"date -s @{now + DAY}")
        run = recorder.ask("health")["run"]

        def put_right() -> list[dict] | None:
            life = [s for s in recorder.segments("road") if s["id"].rsplit("-", 2)[1] == str(run)]
            return life if life and all(s["start_ts"] / 1e6 > now + DAY - 3600 for s in life) else None

        life = recorder.wait_for("the footage of 1970 to lie where it belongs", 60, put_right)
        recorder.wait_stored("road", 30)
        every = recorder.closed("road")
        old = [s for s in every if s["id"].rsplit("-", 2)[1] != str(run)]
        figures.update(of_1970=len(life), old=len(old), kept=kept.splitlines()[0])
        assert old and max(s["end_ts"] for s in old) < min(s["start_ts"] for s in life)
        numbered = frames(recorder, [s for s in every if s not in old], digits, tmp_path)
        figures["drift_seconds"] = apart = round(drift(numbered, INTERVAL), 3)
        assert apart < DRIFT_SECONDS, "footage of one run lies apart"
        assert recorder.ask("health")["storage"]["removed_segments"] == 0
        recorder.stop()
        figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
    finally:
        # The next case gets a board with the right time.
        board.cut_power()
