"""The judge of a power cut: what a recorder may lose, counted in frames that the camera numbered itself.

Given the frames that decode afterwards (number and capture time), the time of the cut on the board's clock and which frame the lens'
source had delivered by then, tells how much is lost, and how much camera and encoder still held. Knows nothing of boards and MOS; works
on what was seen.
"""

from dataclasses import dataclass, field

MOST_LOST_MS = 1000.0
# A sync that takes longer than this is degraded storage: the promise then grows by what it took more.
SYNC_MS = 300.0
# From when a frame was due until its source has delivered it, for a board alone. Longer is a fault of capture, whatever the recorder does.
MOST_HELD_MS = 500.0
# A stretch of missing frames from here on, what is made durable at once, must be told by a gap. Shorter ones are counted.
TOLD_FROM_MS = 500.0
# Times of footage are in ticks of 1/90000 s, those of gaps in microseconds.
ROUNDING = 0.001
# Frames of a stretch whose least delayed one says where the stretch lies, and how far two stretches may be off one another.
STRETCH = 30
DRIFT_SECONDS = 0.5


@dataclass(frozen=True)
class Frame:
    """A frame that decodes: the number in its picture, its capture time in seconds on the board's clock."""

    number: int
    at: float
    shown_ms: int | None = None
    """The time in its picture, if the camera writes one."""


@dataclass
class Verdict:
    lost_ms: float
    """From the newest frame that the source had delivered at the cut to the newest that decodes afterwards."""
    held_ms: float
    """From the newest frame that the camera had made at the cut, by its numbers, to the newest that the source had delivered."""
    frames: int
    missing: list[tuple[int, int]]
    """Numbers within the footage that are not there: first and last of each stretch."""
    untold_ms: float
    """How much of that no gap tells of, in stretches too short to be a fault, or that only the numbers know of."""
    longest_untold_ms: float
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gap:
    start: float
    end: float
    cause: str = ""


def since_opened(frames: list[Frame], interval: float) -> list[Frame]:
    """The frames since the camera was last opened: it then counts from 0 anew, which is no frame out of order."""
    begins = 0
    for place, (before, frame) in enumerate(zip(frames, frames[1:]), start=1):
        later = (frame.at - frame.number * interval) - (before.at - before.number * interval)
        if frame.number < before.number and later > 1:
            begins = place
    return frames[begins:]


def out_of_order(frames: list[Frame]) -> list[str]:
    """Frames that are there twice or before one that they follow. Vivid itself may give two pictures the same number when its machine
    is busy; then the times in them differ."""

    def follows(before: Frame, after: Frame) -> bool:
        if before.shown_ms is None or after.shown_ms is None:
            return after.number > before.number
        return after.number >= before.number and after.shown_ms > before.shown_ms

    pairs = list(zip(frames, frames[1:]))
    return [f"frame {b.number} at {b.at:.3f} s is there twice or does not follow {a.number}" for a, b in pairs if not follows(a, b)]


def drift(frames: list[Frame], interval: float) -> float:
    """How far stretches of one life are off the times that their numbers tell, in seconds, against one another.

    A single frame may be late by itself: an emulated camera stamps a picture when its thread comes to it, which on a starved host
    may be seconds after its number's time. Of `STRETCH` frames the least delayed one is not, so this finds what moves footage.
    """
    late = [frame.at - frame.number * interval for frame in frames]
    # What is left over belongs to the last whole stretch.
    starts = list(range(0, len(late), STRETCH))[: max(1, len(late) // STRETCH)]
    least = [min(late[start:end]) for start, end in zip(starts, [*starts[1:], len(late)])]
    return max(least) - min(least)


def power_cut(
    frames: list[Frame],
    gaps: list[Gap],
    cut: float,
    interval: float,
    worst_sync_ms: float,
    delivered: float | None = None,
    patience: float = 1,
) -> Verdict:
    """Judges one life of a recorder, from its first frame to the cut.

    `interval` is the camera's frame interval in seconds, `cut` the time of the cut; `worst_sync_ms` what the slowest sync of this
    life took, as far as it is known. `delivered` is the capture time of the newest frame that the source had delivered at the cut; where
    nobody knows it, all that the camera had made counts. `patience` is by how much slower than a board alone camera and encoder may be.
    """
    if not frames:
        return Verdict(float("inf"), 0.0, 0, [], 0.0, 0.0, ["nothing of this life decodes"])
    faults = []
    faults += out_of_order(frames)
    # When frame 0 was captured, as the frame says that was delayed least.
    origin = min(f.at - f.number * interval for f in frames)
    made = int((cut - origin) / interval)
    lost_ms = behind_ms = max(0, made - frames[-1].number) * interval * 1000
    if delivered is not None:
        # Frames and not moments: a time in between says nothing of a frame that is missing.
        newest = min(round((delivered - frames[-1].at) / interval) * interval * 1000, behind_ms)
        lost_ms = max(0.0, newest)
    held_ms = behind_ms - lost_ms
    limit = MOST_LOST_MS + max(0.0, worst_sync_ms - SYNC_MS)
    if lost_ms > limit:
        faults.append(f"{lost_ms:.0f} ms are lost, {limit:.0f} may be")
    if held_ms > MOST_HELD_MS * patience:
        faults.append(f"camera and encoder held back {held_ms:.0f} ms, {MOST_HELD_MS * patience:.0f} may be")
    missing = []
    untold_ms = longest_untold_ms = 0.0
    for before, after in zip(frames, frames[1:]):
        first, last = before.number + 1, after.number - 1
        if first > last:
            continue
        missing.append((first, last))
        told = sum(max(0.0, min(gap.end, after.at) - max(gap.start, before.at)) for gap in gaps)
        untold = round((after.at - before.at - interval - told) / interval)
        if told > 0 and untold <= 0:
            continue
        # A starved host's camera skips numbers and stamps late what it then makes. Where its times follow one another as if none was
        # left out, no recorder can know, and no moment is missing.
        long_ms = min(last - first + 1, max(0, untold)) * interval * 1000
        untold_ms += (last - first + 1) * interval * 1000
        longest_untold_ms = max(longest_untold_ms, long_ms)
        if long_ms >= TOLD_FROM_MS:
            faults.append(f"frames {first} to {last} are missing, and no gap tells of it")
    return Verdict(lost_ms, held_ms, len(frames), missing, untold_ms, longest_untold_ms, faults)


def losses(gaps: list[Gap]) -> list[Gap]:
    """What the gaps tell as `power_loss`, each cut as one. A line that tells of pictures which the encoder left out is durable before
    the pictures ahead of it: its gap then parts the cut's own, and all three follow one another without a hole."""
    found: list[Gap] = []
    reached, parted = 0.0, False
    for gap in sorted(gaps, key=lambda gap: gap.start):
        follows = bool(found) and gap.start <= reached + ROUNDING
        if gap.cause != "power_loss":
            if follows:
                reached, parted = max(reached, gap.end), True
            continue
        if follows and parted:
            found[-1] = Gap(found[-1].start, gap.end, gap.cause)
        else:
            found.append(gap)
        reached, parted = gap.end, False
    return found


def told_loss(last: Frame, gaps: list[Gap], cut: float, slack: float, interval: float) -> list[str]:
    """What is wrong with how the end of a life is told: as one `power_loss`, from the last frame to the cut at least.

    Other gaps may lie between the last frame and it, of pictures that never came to the encoder; but what is told begins within
    `MOST_LOST_MS` of the last frame. `slack` is how far the board's clock may be off after a boot.
    """
    behind = [gap for gap in losses(gaps) if not gap.start < gap.end <= last.at + ROUNDING]
    if len(behind) != 1:
        return [f"the cut is told as power_loss {len(behind)} times"]
    (loss,) = behind
    faults = []
    if loss.start < last.at - interval:
        faults.append(f"power_loss begins {last.at - loss.start:.2f} s before the last frame")
    told = min([loss.start, *(gap.start for gap in gaps if gap.start >= last.at - interval)])
    if told - last.at >= MOST_LOST_MS / 1000:
        faults.append(f"nothing is told of {told - last.at:.2f} s after the last frame")
    if loss.end < cut - slack:
        faults.append(f"power_loss ends {cut - loss.end:.2f} s before the cut")
    return faults
