"""All files of a run directory."""

from dataclasses import dataclass

from benchmark.store.schema.card_json import Card
from benchmark.store.schema.rows import SampleRow, ScoreRow, StoredScores
from benchmark.store.schema.run_json import Run


@dataclass(frozen=True)
class StoredFile:
    """A kind of file of a run directory.

    Attributes:
        path: Path inside the run directory; KEY, FIT_KEY and CASE_ID are the columns of these names, and XX the first
            two digits of the file's name.
        meaning: Description for people.
        content: Model of its keys or columns; None for videos, images and tensors.
    """

    path: str
    meaning: str
    content: type | None = None


FILES: tuple[StoredFile, ...] = (
    StoredFile("run.json", "What is run. All videos of the run and their keys follow from it.", Run),
    StoredFile(
        "card.json",
        "Who made the videos, who measured them, and at what cost: written by a merge and by "
        "`python -m benchmark.exchange card`.",
        Card,
    ),
    StoredFile("samples.parquet", "All planned videos, a row each; gathered from `records`.", SampleRow),
    StoredFile("scores.parquet", "All metrics of all videos, a row each; gathered from `scores`.", ScoreRow),
    StoredFile("records/XX/KEY.json", "One row of samples.parquet, written after its video.", SampleRow),
    StoredFile("scores/XX/KEY.json", "What was measured of one video.", StoredScores),
    StoredFile("videos/XX/KEY.mkv", "The video, lossless: FFV1, RGB, 8 bits."),
    StoredFile("previews/XX/KEY.mp4", "The same for a browser, enlarged by a whole number."),
    StoredFile(
        "fits/XX/FIT_KEY.safetensors",
        "The tensors that a fit learned. The header's `cost` is JSON: `seconds` (s) and `peak_gib` (GiB). While a fit "
        "of over five minutes is made, the folder `fits/XX/FIT_KEY.partial` holds its state.",
    ),
    StoredFile(
        "features/XX/FEATURES_KEY.safetensors",
        "What perception saw in a video: fields of `metrics.features.VideoFeatures`, those that were measured.",
    ),
    StoredFile(
        "log.txt",
        "What was made, failed, was taken from other runs or found damaged: a line each, with its time (UTC).",
    ),
    StoredFile("inputs/CASE_ID/reference.mkv", "The reference as methods see it, lossless."),
    StoredFile("inputs/CASE_ID/reference.mp4", "The same for a browser."),
    StoredFile("inputs/CASE_ID/target.png", "The target image as methods see it."),
)
"""All files of a run. The report that the command adds stands in `report/`; `.lock` keeps a second run out."""
