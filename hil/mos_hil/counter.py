"""Vivid's frame counter, read out of the picture. What the digits look like is learnt from vivid itself: from raw pictures whose
numbers V4L2 told as their sequence, since a busy machine's vivid skips some.

The text line is `hh:mm:ss:mmm NUMBER` in cells of 8x16 pixels, the first cell (a blank) at (16, 16); the number begins in the
15th. A cell that is no digit ends the number.
"""

from pathlib import Path

from . import film

CELL_WIDTH, CELL_HEIGHT = 8, 16
LEFT, TOP = 16 + 14 * CELL_WIDTH, 16
CELLS = 7

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
        number = None
        for cell in cells(area, CELLS):
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

    def read_file(self, file: Path) -> list[int | None]:
        areas = film.gray(file, LEFT, TOP, CELLS * CELL_WIDTH, CELL_HEIGHT)
        return [self.read(area) for area in areas]
