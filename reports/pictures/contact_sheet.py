"""Draw a run as one picture: a column per case; rows with frames of the reference, the target and every method."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reports.results import Results
from reports.videos import chosen_cases, first_seed, pictures, reduced

INK, FAINT, PAPER, GAP_COLOUR = (30, 34, 44), (110, 118, 132), (255, 255, 255), (232, 235, 240)
GAP = 10
LINE = 18
FONT_PX = 13
MIN_WIDTH = 88


@dataclass(frozen=True)
class Sheet:
    """Settings of a sheet.

    Attributes:
        frames: Number of frames per video, evenly spaced up to the last, without the first, which image-to-video
            models copy from the target.
        max_cases: Largest number of columns; of more cases evenly spaced ones are taken, regardless of their scores.
        height_px: Largest height of a frame; larger frames are reduced.
        colours: Size of the palette, which makes the file about three times smaller; 0 for all colours.
    """

    frames: int = 3
    max_cases: int = 30
    height_px: int = 96
    colours: int = 0


def write_contact_sheet(results: Results, path: Path, sheet: Sheet) -> int:
    """Draw the sheet at the first seed; return the number of cases, 0 if there are no videos and thus no sheet."""
    run = results.run
    cases = chosen_cases(run, sheet.max_cases)
    names = ("reference", "target", *results.order, *results.bound_order)
    samples = first_seed(run)
    places = np.linspace(0, 1, sheet.frames + 1)[1:]
    rows = [
        [_side_by_side(pictures(run, samples, case, name, places), sheet.height_px) for case in cases] for name in names
    ]
    heights = [cell.shape[0] for row in rows for cell in row if isinstance(cell, np.ndarray)]
    if not heights:
        return 0
    height = max(heights)
    columns = zip(*rows, strict=True)
    widths = [max([MIN_WIDTH, *(c.shape[1] for c in column if isinstance(c, np.ndarray))]) for column in columns]
    image = _drawn(names, cases, rows, widths, height)
    if sheet.colours:
        image = image.quantize(sheet.colours, dither=Image.Dither.NONE)
    image.save(path, format="PNG", optimize=True)
    return len(cases)


def _side_by_side(frames: np.ndarray | str, height_px: int) -> np.ndarray | str:
    """Frames in a row, uint8 [H, W, 3]; the reason why there are none is returned as it is."""
    return frames if isinstance(frames, str) else np.concatenate(list(reduced(frames, height_px)), axis=1)


def _drawn(
    names: tuple[str, ...], cases: list[str], rows: list[list[np.ndarray | str]], widths: list[int], height: int
) -> Image.Image:
    """The sheet with cases at the top and names on the left."""
    # Matplotlib ships this font, so the sheet looks the same on every machine.
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", FONT_PX)
    margin = GAP + max(int(font.getlength(name)) for name in names) + GAP
    lefts = np.cumsum([margin, *(width + GAP for width in widths)])
    top, step = 2 * LINE + GAP, height + GAP
    image = Image.new("RGB", (int(lefts[-1]), top + step * len(names)), PAPER)
    draw = ImageDraw.Draw(image)
    for case, left, width in zip(cases, lefts, widths, strict=False):
        for line, text in enumerate(_two_lines(case, width, font)):
            draw.text((left, GAP // 2 + line * LINE), text, FAINT, font)
    for index, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = top + index * step
        draw.text((GAP, y + (height - LINE) // 2), name, INK, font)
        for cell, left, width in zip(row, lefts, widths, strict=False):
            if isinstance(cell, str):
                draw.rectangle((left, y, left + width - 1, y + height - 1), GAP_COLOUR)
                draw.text((left + 4, y + 4), cell, FAINT, font)
            else:
                image.paste(Image.fromarray(cell), (int(left), y))
    return image


def _two_lines(case: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """A case name, broken at a hyphen if it is wider than its column."""
    if font.getlength(case) <= width or "-" not in case:
        return [case]
    parts = case.split("-")
    fitting = [cut for cut in range(1, len(parts)) if font.getlength("-".join(parts[:cut]) + "-") <= width] or [1]
    return ["-".join(parts[: fitting[-1]]) + "-", "-".join(parts[fitting[-1] :])]
