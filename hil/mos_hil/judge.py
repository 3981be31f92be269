"""The judge of a power cut: what a recorder may lose, counted in frames that the camera numbered itself.

Given the frames that decode afterwards (number and capture time) and the time of the cut on the board's clock, tells how much is
lost. Knows nothing of boards and MOS; works on what was seen.
"""

from dataclasses import dataclass, field

MOST_LOST_MS = 1000.0
# A sync that takes longer than this is degraded storage: the promise then grows by what it took more.
SYNC_MS = 300.0
# A stretch of missing frames from here on must be told by a gap. Shorter ones are counted: the camera itself skips pictures when its
# machine is busy (six in a row were seen on a rig of little CPU), which shows in no other place than its numbers.
TOLD_FROM_MS = 1000.0


@dataclass(frozen=True)
class Frame:
    """A frame that decodes: the number in its picture, its capture time in seconds on the board's clock."""

    number: int
    at: float


@dataclass
class Verdict:
    lost_ms: float
    """From the newest frame that the camera had delivered at the cut to the newest that decodes afterwards."""
    frames: int
    missing: list[tuple[int, int]]
    """Numbers within the footage that are not there: first and last of each stretch."""
    untold_ms: float
    """How much of that no gap tells of, in stretches too short to be a fault."""
    longest_untold_ms: float
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gap:
    start: float
    end: float


def since_opened(frames: list[Frame], interval: float) -> list[Frame]:
    """The frames since the camera was last opened: it then counts from 0 anew, which is no frame out of order."""
    begins = 0
    for place, (before, frame) in enumerate(zip(frames, frames[1:]), start=1):
        later = (frame.at - frame.number * interval) - (before.at - before.number * interval)
        if frame.number < before.number and later > 1:
            begins = place
    return frames[begins:]


def power_cut(frames: list[Frame], gaps: list[Gap], cut: float, interval: float, worst_sync_ms: float) -> Verdict:
    """Judges one life of a recorder, from its first frame to the cut.

    `interval` is the camera's frame interval in seconds, `cut` the time of the cut; `worst_sync_ms` what the slowest sync of this
    life took, as far as it is known.
    """
    if not frames:
        return Verdict(float("inf"), 0, [], 0.0, 0.0, ["nothing of this life decodes"])
    faults = []
    if [f.number for f in frames] != sorted({f.number for f in frames}):
        faults.append("frames are out of order or there twice")
    # When frame 0 was captured, as the frame says that was delayed least.
    origin = min(f.at - f.number * interval for f in frames)
    delivered = int((cut - origin) / interval)
    lost_ms = max(0, delivered - frames[-1].number) * interval * 1000
    limit = MOST_LOST_MS + max(0.0, worst_sync_ms - SYNC_MS)
    if lost_ms > limit:
        faults.append(f"{lost_ms:.0f} ms are lost, {limit:.0f} may be")
    missing = [(a.number + 1, b.number - 1) for a, b in zip(frames, frames[1:]) if b.number > a.number + 1]
    untold_ms = longest_untold_ms = 0.0
    for first, last in missing:
        start, end = origin + first * interval, origin + last * interval
        if any(gap.start <= end + interval and gap.end >= start - interval for gap in gaps):
            continue
        long_ms = (last - first + 1) * interval * 1000
        longest_untold_ms = max(longest_untold_ms, long_ms)
        if long_ms >= TOLD_FROM_MS:
            faults.append(f"frames {first} to {last} are missing, and no gap tells of it")
        else:
            untold_ms += long_ms
    return Verdict(lost_ms, len(frames), missing, untold_ms, longest_untold_ms, faults)
