"""Vivid's frame counter, read out of the picture. What the digits look like is learnt from vivid itself: from raw pictures whose
numbers V4L2 told as their sequence, since a busy machine's vivid skips some.

The text line is `hh:mm:ss:mmm NUMBER` in cells of 8x16 pixels, the first cell (a blank) at (16, 16); the number begins in the
15th. A cell that is no digit ends the number.
"""

from pathlib import Path

from . import film

CELL_WIDTH, CELL_HEIGHT = 8, 16
START, TOP = 16, 16
BEFORE, CELLS = 14, 7
LEFT = START + BEFORE * CELL_WIDTH
# Where the digits of the time are, which runs on from picture to picture.
CLOCK = ((1, 2), (4, 5), (7, 8), (10, 11, 12))

Glyph = tuple[bool, ...]


def cells(area: bytes, count: int) -> list[Glyph]:
    """Cuts a line of text into its cells and tells light from dark."""
    width = count * CELL_WIDTH
    assert len(area) == width * CELL_HEIGHT
    return [
        tuple(area[row * width + cell * CELL_WIDTH + column] > 96 for row in range(CELL_HEIGHT) for column in range(CELL_WIDTH))
        for cell in range(count)
    ]


class Digits:
    def __init__(self, glyphs: list[Glyph]) -> None:
        assert len(glyphs) == 10 and len(set(glyphs)) == 10, "ten different digits are needed"
        self._glyphs = glyphs

    @classmethod
    def learn(cls, raw: bytes, width: int, height: int, numbers: list[int]) -> "Digits":
        """From pictures of vivid's in the format GREY and their numbers, which must have every digit among them."""
        frame = width * height
        assert len(raw) == len(numbers) * frame, f"{len(raw)} bytes are not {len(numbers)} pictures"
        glyphs: dict[str, Glyph] = {}
        for place, number in enumerate(numbers):
            shown = str(number)
            at = place * frame
            rows = [raw[at + (TOP + row) * width + LEFT :][: len(shown) * CELL_WIDTH] for row in range(CELL_HEIGHT)]
            for digit, glyph in zip(shown, cells(b"".join(rows), len(shown))):
                assert glyphs.setdefault(digit, glyph) == glyph, f"picture {number} shows another {digit} than those before"
        missing = set("0123456789") - set(glyphs)
        assert not missing, f"no picture of {numbers} shows a {min(missing)}"
        return cls([glyphs[digit] for digit in "0123456789"])

    def read(self, area: bytes) -> int | None:
        """The number in a line of CELLS cells; None if there is none."""
        return self._number(cells(area, CELLS))

    def _number(self, line: list[Glyph]) -> int | None:
        number = None
        for cell in line:
            digit = self._digit(cell)
            if digit is None:
                break
            number = (number or 0) * 10 + digit
        return number

    def _digit(self, cell: Glyph) -> int | None:
        if sum(cell) == 0:
            return None
        off, digit = min((sum(a != b for a, b in zip(cell, glyph)), digit) for digit, glyph in enumerate(self._glyphs))
        # Coding blurs a few pixels; the two digits that are most alike differ in more.
        return digit if off <= 5 else None

    def _clock(self, line: list[Glyph]) -> int | None:
        """Milliseconds of the time in front of the number."""
        parts = []
        for places in CLOCK:
            digits = [self._digit(line[place]) for place in places]
            if None in digits:
                return None
            parts.append(int("".join(map(str, digits))))
        hours, minutes, seconds, milliseconds = parts
        return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds

    def read_file(self, file: Path) -> list[int | None]:
        return [number for number, _ in self.read_pictures(file)]

    def read_pictures(self, file: Path) -> list[tuple[int | None, int | None]]:
        """Of each picture its number and the time in it, in ms; None where there is none to be read."""
        count = BEFORE + CELLS
        lines = [cells(area, count) for area in film.gray(file, START, TOP, count * CELL_WIDTH, CELL_HEIGHT)]
        return [(self._number(line[BEFORE:]), self._clock(line)) for line in lines]
