"""What the recorder takes of a board's memory: without a lens, and in hours in short: two lenses record while clips, pictures and live
frames are asked for all the time. Nothing grows, nothing stops."""

import time
from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.footage import holes
from mos_hil.recorder import ARCHIVE, HOME, Recorder, configuration
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh"])

# Of the program as firmware has it; one that is larger than that may be is a debug build, whose code alone is more.
MOST_IDLE_BYTES, MOST_PROGRAM_BYTES = 30_000_000, 20_000_000
# More than what the allocator keeps for itself from round to round.
MOST_GROWTH_KIB = 16 * 1024
WARM_SHARE = 0.4


def test_idle_memory(recorder: Recorder, figures: dict) -> None:
    board = recorder.board
    recorder.start(configuration({}))
    recorder.wait_recovered()
    said = board.run(f"awk '/^(Rss|Pss|Pss_Anon):/ {{print $1 $2}}' /proc/$(cat {HOME}/pid)/smaps_rollup")
    figures.update({f"{key.lower()}_kib": int(value) for key, value in (line.split(":") for line in said.split())})
    figures["program_bytes"] = int(board.run("stat -L -c %s $(command -v mos)"))
    if figures["program_bytes"] <= MOST_PROGRAM_BYTES:
        assert figures["rss_kib"] * 1024 <= MOST_IDLE_BYTES


def test_soak(request: pytest.FixtureRequest, recorder: Recorder, vivid: Vivid, figures: dict, tmp_path: Path) -> None:
    seconds = request.config.getoption("soak")
    board = recorder.board
    recorder.start(configuration({"road": vivid.source(), "link": vivid.hdmi_source()}))
    for lens in ("road", "link"):
        recorder.wait_stored(lens, 30, 180)
    gaps = {lens: len(recorder.gaps(lens)) for lens in ("road", "link")}
    samples: list[tuple[int, int, int]] = []
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < seconds or rounds < 5:
        segment = recorder.wait_closed("road", long=1.6)[-1]
        recorder.do(f"clip {segment['id']} --from 0.5 --to 1.5 -o {HOME}/clip.mp4")
        recorder.do(f"snapshot {segment['id']} --at 0 -o {HOME}/picture.jpg")
        recorder.do("frames link --seconds 1 --json")
        board.run(f"rm -f {HOME}/clip.mp4 {HOME}/picture.jpg")
        rss, fds, threads = board.run(
            f"p=$(cat {HOME}/pid); awk '/VmRSS/ {{print $2}}' /proc/$p/status; ls /proc/$p/fd | wc -l; ls /proc/$p/task | wc -l"
        ).split()
        samples.append((int(rss), int(fds), int(threads)))
        rounds += 1
    warm = samples[int(len(samples) * WARM_SHARE)]
    last = samples[-1]
    figures.update(
        seconds=round(time.monotonic() - began), rounds=rounds, rss_kib=[samples[0][0], warm[0], last[0]], fds=[warm[1], last[1]],
        threads=[warm[2], last[2]], reconnects={lens: recorder.lens(lens)["reconnects"] for lens in ("road", "link")},
        stored={lens: recorder.lens(lens)["stored"] for lens in ("road", "link")},
        dropped={lens: recorder.lens(lens)["dropped"] for lens in ("road", "link")},
    )
    assert last[0] - warm[0] < MOST_GROWTH_KIB, "memory grows"
    assert last[1] <= warm[1] + 4, "descriptors leak"
    assert last[2] <= warm[2] + 2, "threads leak"
    for lens in ("road", "link"):
        told = recorder.gaps(lens)[gaps[lens]:]
        # A busy emulator's camera and encoder may leave pictures out, and the lens that matters less then gives way, all of it told; a
        # camera that broke off would be a fault. On a real board anything is.
        spared = {"encoder_slow", "camera_skipped", "degraded"} if board.virtual else set()
        assert {g["cause"] for g in told} <= spared, told
        closed = recorder.wait_closed(lens)
        assert holes(recorder.listed(lens)) == []
        film.look(recorder.fetch(closed[-1], tmp_path))
    recorder.stop()
    figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
