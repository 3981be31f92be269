"""The judges must find what they are for: each is shown a doctored archive."""

import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

from mos_hil import counter, film, report  # noqa: E402
from mos_hil.judge import Frame, Gap, drift, losses, out_of_order, power_cut, since_opened, told_loss  # noqa: E402


def life(*numbers: int) -> list[Frame]:
    return [Frame(n, 1000.0 + n * 0.1) for n in numbers]


class PowerCut(unittest.TestCase):
    def test_a_loss_of_half_a_second_is_measured_and_allowed(self):
        verdict = power_cut(life(*range(50)), [], cut=1005.45, interval=0.1, worst_sync_ms=40)
        self.assertEqual((verdict.faults, round(verdict.lost_ms)), ([], 500))

    def test_frames_cut_off_the_end_are_found(self):
        verdict = power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=40)
        self.assertEqual(len(verdict.faults), 1)
        self.assertIn("1500 ms are lost", verdict.faults[0])

    def test_what_the_encoder_held_is_no_loss_but_has_its_own_limit(self):
        def judged(*, newest: float, patience: int):
            return power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=40, delivered=newest, patience=patience)

        held = judged(newest=1004.7, patience=5)
        self.assertEqual((held.faults, round(held.lost_ms), round(held.held_ms)), ([], 800, 700))
        # A board alone has no such excuse.
        self.assertIn("held back 700 ms", judged(newest=1004.7, patience=1).faults[0])
        # What was delivered is lost, whoever was slow besides.
        lost = judged(newest=1005.2, patience=5)
        self.assertEqual((round(lost.lost_ms), round(lost.held_ms)), (1300, 200))
        self.assertIn("1300 ms are lost", lost.faults[0])

    def test_a_recorder_that_tells_of_frames_to_come_gains_nothing(self):
        verdict = power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=40, delivered=1009.0)
        self.assertEqual((round(verdict.lost_ms), round(verdict.held_ms)), (1500, 0))
        # Nor does one that hides what it was given.
        silent = power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=40, delivered=1003.9)
        self.assertIn("held back 1500 ms", silent.faults[0])

    def test_slow_storage_widens_the_limit_by_what_it_took_more(self):
        slow = power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=850)
        self.assertEqual(slow.faults, [])
        slower = power_cut(life(*range(40)), [], cut=1005.45, interval=0.1, worst_sync_ms=750)
        self.assertNotEqual(slower.faults, [])

    def test_frames_missing_in_the_middle_need_a_gap(self):
        frames = life(*range(20), *range(30, 50))
        silent = power_cut(frames, [], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertIn("frames 20 to 29 are missing", silent.faults[0])
        told = power_cut(frames, [Gap(1001.95, 1002.95)], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertEqual((told.faults, told.missing), ([], [(20, 29)]))
        elsewhere = power_cut(frames, [Gap(1004.0, 1004.5)], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertNotEqual(elsewhere.faults, [])

    def test_a_short_skip_without_a_gap_is_counted(self):
        verdict = power_cut(life(*range(20), *range(22, 50)), [], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertEqual((verdict.faults, verdict.untold_ms, verdict.missing), ([], 200.0, [(20, 21)]))

    def test_half_a_second_without_a_gap_is_a_fault(self):
        verdict = power_cut(life(*range(20), *range(25, 50)), [], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertIn("frames 20 to 24 are missing", verdict.faults[0])

    def test_a_gap_tells_only_of_what_it_covers(self):
        frames = life(*range(20), *range(30, 50))
        verdict = power_cut(frames, [Gap(1002.0, 1002.4)], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertIn("frames 20 to 29 are missing", verdict.faults[0])

    def test_numbers_that_no_moment_is_missing_for_are_counted(self):
        # The camera's thread slept, stamped 19 late and 28 in time.
        frames = [*life(*range(19)), Frame(19, 1002.7), *life(*range(28, 50))]
        verdict = power_cut(frames, [], cut=1005.0, interval=0.1, worst_sync_ms=40)
        self.assertEqual((verdict.faults, verdict.untold_ms), ([], 800.0))
        early = [*life(*range(20)), *life(*range(28, 50))]
        self.assertNotEqual(power_cut(early, [], cut=1005.0, interval=0.1, worst_sync_ms=40).faults, [])

    def test_frames_twice_are_found(self):
        self.assertNotEqual(power_cut(life(0, 1, 1, 2), [], cut=1000.3, interval=0.1, worst_sync_ms=40).faults, [])

    def test_the_same_number_in_two_pictures_is_the_cameras_own(self):
        def twice(*shown: int):
            return [Frame(n, 1000 + at / 10, ms) for at, (n, ms) in enumerate(zip((50, 52, 52, 53), shown))]

        self.assertEqual(out_of_order(twice(4996, 5184, 5244, 5304)), [])
        self.assertEqual(len(out_of_order(twice(4996, 5184, 5184, 5304))), 1)
        self.assertEqual(len(out_of_order(twice(4996, 5244, 5184, 5304))), 1)

    def test_nothing_left_is_found(self):
        self.assertNotEqual(power_cut([], [], cut=1000.0, interval=0.1, worst_sync_ms=40).faults, [])


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = Path(self.folder.name) / "a.mp4"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=10:duration=2", "-c:v", "libx264"]
        subprocess.run([*command, "-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov", str(self.file)], check=True)

    def test_a_whole_file_is_read(self):
        self.assertEqual(len(film.look(self.file).times), 20)

    def test_an_empty_file_is_found(self):
        self.file.write_bytes(b"")
        self.assertRaises(film.Unreadable, film.look, self.file)

    def test_a_file_of_zeroes_is_found(self):
        self.file.write_bytes(bytes(self.file.stat().st_size))
        self.assertRaises(film.Unreadable, film.look, self.file)

    def test_zeroes_in_the_pictures_are_found(self):
        data = bytearray(self.file.read_bytes())
        at = data.index(b"mdat") + 200
        data[at : at + 2000] = bytes(2000)
        self.file.write_bytes(data)
        self.assertRaises(film.Unreadable, film.look, self.file)

    def test_a_file_cut_off_within_its_head_is_found(self):
        self.file.write_bytes(self.file.read_bytes()[:100])
        self.assertRaises(film.Unreadable, film.look, self.file)


class Told(unittest.TestCase):
    """How a cut at 1005.5 behind a last frame at 1005.0 may be told."""

    @staticmethod
    def faults(*gaps: Gap) -> list[str]:
        return told_loss(Frame(50, 1005.0), list(gaps), cut=1005.5, slack=1.5, interval=0.1)

    def test_one_loss_from_the_last_frame_to_the_cut(self):
        self.assertEqual(self.faults(Gap(1001.0, 1001.5, "encoder_slow"), Gap(1005.1, 1020.0, "power_loss")), [])

    def test_other_causes_may_lie_between(self):
        self.assertEqual(self.faults(Gap(1005.1, 1007.3, "encoder_slow"), Gap(1007.3, 1020.0, "power_loss")), [])

    def test_an_account_that_the_cut_left_parts_its_loss(self):
        # As seen: the last frame lasts to 5.2, its follower was not durable, the line about the two behind that one was.
        parts = [Gap(1005.2, 1005.3, "power_loss"), Gap(1005.3, 1005.5, "encoder_slow"), Gap(1005.5, 1020.0, "power_loss")]
        self.assertEqual(losses(parts), [Gap(1005.2, 1020.0, "power_loss")])
        self.assertEqual(self.faults(*parts), [])
        # Footage or a hole between them are two losses.
        self.assertEqual(len(losses([parts[0], parts[2]])), 2)
        self.assertEqual(len(losses([parts[0], Gap(1005.4, 1005.5, "encoder_slow"), parts[2]])), 2)

    def test_what_is_told_wrongly_is_found(self):
        self.assertIn("0 times", self.faults(Gap(1005.1, 1020.0, "recorder_killed"))[0])
        self.assertIn("2 times", self.faults(Gap(1005.1, 1006.0, "power_loss"), Gap(1006.0, 1020.0, "power_loss"))[0])
        self.assertIn("before the last frame", self.faults(Gap(1004.0, 1020.0, "power_loss"))[0])
        self.assertIn("nothing is told", self.faults(Gap(1006.1, 1020.0, "power_loss"))[0])
        self.assertIn("before the cut", self.faults(Gap(1002.0, 1003.0, "camera_skipped"), Gap(1005.05, 1003.9, "power_loss"))[0])


class Drift(unittest.TestCase):
    def test_single_late_frames_are_none(self):
        frames = [Frame(n, 1000.0 + n * 0.1 + (4.0 if n % 7 == 3 else 0.03)) for n in range(200)]
        self.assertLess(drift(frames, 0.1), 0.1)

    def test_footage_that_is_moved_by_a_second_is_found(self):
        moved = [Frame(n, 1000.0 + n * 0.1 + (1.0 if n >= 100 else 0.0)) for n in range(200)]
        self.assertGreater(drift(moved, 0.1), 0.9)
        closed_up = [Frame(n * 2, 1000.0 + n * 0.1) for n in range(100)]
        self.assertGreater(drift(closed_up, 0.1), 0.9)

    def test_few_frames_have_none(self):
        self.assertEqual(drift(life(1, 2), 0.1), 0.0)


class Opened(unittest.TestCase):
    def test_a_camera_that_counts_anew_begins_anew(self):
        second = [Frame(n, 1020.0 + n * 0.1) for n in range(5)]
        self.assertEqual(since_opened([*life(*range(10)), *second], 0.1), second)

    def test_frames_out_of_order_are_no_new_beginning(self):
        swapped = life(0, 1, 3, 2, 4)
        self.assertEqual(since_opened(swapped, 0.1), swapped)


class Counter(unittest.TestCase):
    """Digits drawn here: any ten shapes will do, since they are learnt."""

    WIDTH, HEIGHT = 320, 40

    @staticmethod
    def shape(digit: int) -> list[list[int]]:
        pixels = random.Random(digit)
        return [[pixels.choice([16, 200]) for _ in range(8)] for _ in range(16)]

    def picture(self, text: str) -> bytes:
        rows = [bytearray([16] * self.WIDTH) for _ in range(self.HEIGHT)]
        for cell, digit in enumerate(text):
            for row, line in enumerate(self.shape(int(digit))):
                x = counter.LEFT + cell * 8
                rows[counter.TOP + row][x : x + 8] = bytes(line)
        return b"".join(rows)

    def learnt(self, numbers: list[int]) -> counter.Digits:
        return counter.Digits.learn(b"".join(self.picture(str(n)) for n in numbers), self.WIDTH, self.HEIGHT, numbers)

    def test_digits_that_no_picture_showed_or_that_are_others_are_told(self):
        with self.assertRaisesRegex(AssertionError, "shows a 9"):
            self.learnt([0, 1, 3, 4, 7, 12, 15, 16, 18])
        with self.assertRaisesRegex(AssertionError, "another 0"):
            counter.Digits.learn(self.picture("0") + self.picture("1"), self.WIDTH, self.HEIGHT, [0, 0])

    def test_numbers_are_read_and_other_things_are_not(self):
        digits = self.learnt([0, 1, 3, 4, 7, 12, 15, 16, 18, 19])

        def line(picture: bytes) -> bytes:
            at = [(counter.TOP + row) * self.WIDTH + counter.LEFT for row in range(16)]
            return b"".join(picture[a : a + counter.CELLS * 8] for a in at)

        self.assertEqual(digits.read(line(self.picture("40719"))), 40719)
        self.assertIsNone(digits.read(line(bytes(self.WIDTH * self.HEIGHT))))
        self.assertIsNone(digits.read(line(bytes([255]) * (self.WIDTH * self.HEIGHT))))


class Reported(unittest.TestCase):
    """A case is passed only by its own steps."""

    @staticmethod
    def verdict(*phases: str) -> str:
        made = report.Report("rig")
        for phase in phases:
            when, outcome = phase.split()
            made.take(SimpleNamespace(
                nodeid="case", when=when, duration=0.1, passed=outcome == "passed", failed=outcome == "failed",
                skipped=outcome == "skipped", longrepr="why",
            ))
        return made.content()["cases"][0]["verdict"]

    def test_only_steps_that_came_to_their_end_pass(self):
        self.assertEqual(self.verdict("setup passed", "call passed", "teardown passed"), "passed")
        self.assertEqual(self.verdict("setup passed"), "failed")
        self.assertEqual(self.verdict("setup passed", "teardown passed"), "failed")
        self.assertEqual(self.verdict("setup failed", "teardown passed"), "failed")
        self.assertEqual(self.verdict("setup passed", "call failed", "teardown passed"), "failed")
        self.assertEqual(self.verdict("setup passed", "call passed", "teardown failed"), "failed")
        self.assertEqual(self.verdict("setup skipped"), "skipped")


if __name__ == "__main__":
    unittest.main()
