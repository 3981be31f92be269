"""The power goes in the middle of recording, again and again, on one archive. After each boot the promise must hold: at most a
second is lost, every file decodes, what is protected is unchanged, and the archive is sound."""

import hashlib
import random
import statistics
import time
from pathlib import Path

import pytest
from mos_hil.beat import Beat
from mos_hil.board import Board
from mos_hil.counter import Digits
from mos_hil.delivered import Delivered
from mos_hil.footage import frames, gaps, holes, of_run
from mos_hil.judge import losses, power_cut, told_loss
from mos_hil.recorder import ARCHIVE, Recorder, configuration
from mos_hil.vivid import INTERVAL, Vivid

# A board's clock chip counts whole seconds: after a boot its clock may be that much off.
CLOCK_CHIP = 1.5
# Short, so that cuts fall into closes as well.
SEGMENT_SECONDS = 2
TICK_SECONDS = 0.5

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "power", "data-disk"])


def test_power_cuts(
    request: pytest.FixtureRequest, board: Board, recorder: Recorder, vivid: Vivid, digits: Digits, seed: int, figures: dict, tmp_path: Path
) -> None:
    cuts = request.config.getoption("cuts") or board.settings.get("cuts", 20)
    moments = random.Random(seed)
    lost: list[float] = []
    held: list[float] = []
    figures.update(seed=seed, cuts=0, lost_ms=lost, held_ms=held, worst_sync_ms=[], boot_seconds=[], missing_frames=0, untold_ms=0.0, longest_untold_ms=0.0, files=0)

    config = configuration({"road": vivid.source()}, segment_seconds=SEGMENT_SECONDS)
    recorder.start(config)
    protected = recorder.wait_closed("road")[0]["id"]
    recorder.do(f"protect {protected}")
    run = recorder.ask("health")["run"]
    for cut in range(1, cuts + 1):
        recorder.wait_stored("road", 5)
        beat, delivered = Beat(board), Delivered(recorder, "road")
        time.sleep(moments.uniform(0.0, 2.0 * SEGMENT_SECONDS))
        worst_sync = recorder.ask("health")["storage"]["worst_sync_ms"]
        time.sleep(moments.uniform(0.0, 1.0))
        # What was delivered must be known of this moment, however slow the board is to tell it; and the cut must keep no step with the
        # answers, which one processor gives when a commit lets it.
        delivered.wait_fresh()
        time.sleep(moments.uniform(0.0, TICK_SECONDS))
        cut_at = board.cut_power()
        delivered.stop()
        at, newest = beat.board_time(cut_at), delivered.at(cut_at, INTERVAL)
        beat.stop()

        figures["boot_seconds"].append(round(board.boot(), 1))
        vivid.load()
        recorder.start(config)
        status = recorder.wait_recovered()
        assert status["storage"]["quarantine"] == 0, f"cut {cut}: something is in quarantine"
        listed = recorder.listed("road")
        life = of_run(listed["segments"], run)
        assert all(s["state"] != "open" for s in life), f"cut {cut}: {life}"
        seen, told = frames(recorder, life, digits, tmp_path), gaps(listed)
        verdict = power_cut(seen, told, at, INTERVAL, worst_sync, newest, board.patience)
        lost.append(round(verdict.lost_ms, 1))
        held.append(round(verdict.held_ms, 1))
        figures["worst_sync_ms"].append(round(worst_sync, 1))
        figures["cuts"] = cut
        figures["missing_frames"] += sum(last - first + 1 for first, last in verdict.missing)
        figures["untold_ms"] += verdict.untold_ms
        figures["longest_untold_ms"] = max(figures["longest_untold_ms"], verdict.longest_untold_ms)
        figures["files"] += len(life)
        figures.update(lost_p50_ms=statistics.median(lost), lost_max_ms=max(lost), held_max_ms=max(held))
        assert verdict.faults == [], f"cut {cut} of run {run}, seed {seed}"
        # What the cut cost is told as such, once, and no earlier one is told otherwise than it was.
        cuts_told = losses(told)
        figures["told_gaps"] = len(cuts_told)
        assert len(cuts_told) == cut, f"cut {cut}: told as power_loss {len(cuts_told)} times"
        assert told_loss(seen[-1], [g for g in told if g.end > seen[0].at], at, CLOCK_CHIP, INTERVAL) == [], f"cut {cut}"
        assert holes(listed, until=cuts_told[-1].end) == [], f"cut {cut}"
        unchanged(recorder, listed, tmp_path)
        run = status["run"]

    # Every file, after all the recoveries; then the archive as a whole.
    recorder.wait_closed("road")
    listed = recorder.listed("road")
    everything = [s for s in listed["segments"] if s["state"] != "open"]
    assert len({s["id"] for s in everything}) == len(everything)
    kept = unchanged(recorder, listed, tmp_path)
    frames(recorder, [s for s in everything if s["id"] not in kept], digits, tmp_path)
    assert protected in kept and next(s for s in everything if s["id"] == protected)["protected"]
    empty = board.run(f"find {ARCHIVE}/segments -name '*.mp4' -size 0")
    recorder.stop()
    assert empty == ""
    figures["check"] = recorder.check(ARCHIVE).splitlines()[0]


def unchanged(recorder: Recorder, listed: dict, folder: Path) -> set[str]:
    """Files that were decoded here are on the board as they were then: which. The protected one is among them from the first cut on."""
    paths = {s["path"]: s["id"] for s in listed["segments"] if (folder / f"{s['id']}.mp4").exists()}
    said = dict(reversed(line.split(maxsplit=1)) for line in recorder.board.run(f"sha256sum {' '.join(paths)}").splitlines())
    for path, segment in paths.items():
        assert said[path] == hashlib.sha256((folder / f"{segment}.mp4").read_bytes()).hexdigest(), f"{segment} has changed"
    return set(paths.values())
