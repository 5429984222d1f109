"""Draw a run as one picture: a column per case; rows with frames of the reference, the target and every method."""

from dataclasses import dataclass
from pathlib import Path

import av
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reports.results import Results
from reports.run_folder import StoredRun

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
    """Draw the sheet at the first seed.

    Returns:
        Number of cases shown; 0 if the run directory holds no videos, and then nothing is written.
    """
    run = results.run
    cases = chosen_cases(run, sheet.max_cases)
    names = ("reference", "target", *results.order, *results.bound_order)
    samples = first_seed(run)
    rows = [[_cell(run, samples, case, name, sheet) for case in cases] for name in names]
    pictures = [cell for row in rows for cell in row if isinstance(cell, np.ndarray)]
    if not pictures:
        return 0
    height = max(picture.shape[0] for picture in pictures)
    columns = zip(*rows, strict=True)
    widths = [max([MIN_WIDTH, *(c.shape[1] for c in column if isinstance(c, np.ndarray))]) for column in columns]
    image = _drawn(names, cases, rows, widths, height)
    if sheet.colours:
        image = image.quantize(sheet.colours, dither=Image.Dither.NONE)
    image.save(path, format="PNG", optimize=True)
    return len(cases)


def chosen_cases(run: StoredRun, at_most: int) -> list[str]:
    """Evenly spaced cases in run.json's order, chosen without regard to scores."""
    cases = list(run.info["cases"])
    if len(cases) <= at_most:
        return cases
    return [cases[index] for index in np.linspace(0, len(cases) - 1, at_most).round().astype(int)]


def first_seed(run: StoredRun) -> dict[tuple[str, str], dict[str, object]]:
    """The sample rows at the run's first seed by (method, case_id), without videos that were not made yet."""
    rows = run.samples[(run.samples["seed"] == run.seeds[0]) & (run.samples["status"] != "missing")]
    return {(row["method"], row["case_id"]): row for row in rows.to_dict("records")}


def inside(run: StoredRun, relative: object) -> Path | None:
    """Path to a stored file; None if there is none or the stored path leads out of the run directory."""
    if not isinstance(relative, str) or not relative:
        return None
    path = (run.folder / relative).resolve()
    return path if path.is_relative_to(run.folder.resolve()) and path.is_file() else None


def read_frames(path: Path, number_of: int) -> np.ndarray | None:
    """Frames evenly spaced up to the last, uint8 [number_of, H, W, 3]; None if the file cannot be decoded."""
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError, OSError):
        return None
    if not frames:
        return None
    chosen = np.linspace(0, len(frames) - 1, number_of + 1)[1:].round().astype(int)
    return np.stack([frames[index] for index in chosen])


def _cell(
    run: StoredRun, samples: dict[tuple[str, str], dict[str, object]], case: str, name: str, sheet: Sheet
) -> np.ndarray | str:
    """Frames side by side, uint8 [H, W, 3], or the reason why there are none."""
    if name == "target":
        path = inside(run, f"inputs/{case}/target.png")
        return "no file" if path is None else _reduced(np.asarray(Image.open(path).convert("RGB"))[None], sheet)
    if name == "reference":
        path = inside(run, f"inputs/{case}/reference.mkv")
    else:
        sample = samples.get((name, case))
        if sample is None:
            return "not run"
        if sample["status"] != "ok":
            return str(sample["status"])
        path = inside(run, sample["video"])
    frames = None if path is None else read_frames(path, sheet.frames)
    return "no file" if frames is None else _reduced(frames, sheet)


def _reduced(frames: np.ndarray, sheet: Sheet) -> np.ndarray:
    height, width = frames.shape[1:3]
    if height > sheet.height_px:
        size = (max(1, round(width * sheet.height_px / height)), sheet.height_px)
        images = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames]
        return np.concatenate([np.asarray(image) for image in images], axis=1)
    return np.concatenate(list(frames), axis=1)


def _drawn(
    names: tuple[str, ...], cases: list[str], rows: list[list[np.ndarray | str]], widths: list[int], height: int
) -> Image.Image:
    """The sheet with cases at the top and names on the left."""
    font = _font()
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


def _font() -> ImageFont.FreeTypeFont:
    # Matplotlib ships this font, so the sheet looks the same on every machine.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", FONT_PX)
