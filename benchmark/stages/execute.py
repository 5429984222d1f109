"""Make the videos: load or compute a fit, transfer, store. A failure becomes a row; only a full disk stops the run."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.plan import Cell
from benchmark.stages.metering import Cost, measured
from benchmark.store.errors import error_text
from benchmark.store.folder import RunFolder, StoreError
from benchmark.store.gather import missing_row, sample_row
from benchmark.store.schema.rows import SampleRow
from benchmark.submissions.submission import RESIZE_RULE, RESIZE_VERSION, Submission
from benchmark.suites.case import Case, Format, Shown, Stages
from benchmark.suites.file_cases import NO_TRUTH
from benchmark.suites.truth import Staged, ToldKeypoints, tell_keypoints
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.loading import NETWORKS
from flexiact.backbone.offload import begin_turns
from flexiact.fits import FitFolder
from flexiact.media.files import WriteError
from flexiact.media.image import write_png
from flexiact.media.video import frames_digest, write_lossless, write_preview
from flexiact.task import Action, ActionTransfer, Request, Video
from flexiact.terminal.cli import one_line, shortened

_MIB = 1024.0**2
_PREVIEW_SIDE_PX = 256  # a whole factor enlarges previews to about this size


@dataclass(frozen=True, eq=False)
class Fit:
    """A learned action and its cost."""

    action: Action
    seconds: float
    peak_gib: float


class Executor:
    """Runs cells of one run. Pass cells that share a fit one after the other: only the last fit stays in memory.

    The caller has opened the folder and built the methods on the backbone; those that are `told` receive true keypoints
    (see `ToldKeypoints`).
    """

    def __init__(
        self,
        folder: RunFolder,
        backbone: Backbone,
        methods: Mapping[str, ActionTransfer],
        cases: Mapping[str, Case],
        told: Collection[str] = (),
        submissions: Mapping[str, Submission] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._backbone = backbone
        self._methods = methods
        self._told = told
        self._submissions = submissions
        self.stages = Stages(cases, format_of(backbone))
        self._last_fit: tuple[str, Fit] | None = None
        self._failed_fits: dict[str, str] = {}

    def execute(self, cell: Cell) -> SampleRow:
        """Make the video of a cell and store it with its row; errors but `StoreError` become a row that failed."""
        row, video = self._made(cell)
        try:
            if video is not None:
                row = replace(row, video_bytes=self._write_video(cell, video))
        except (WriteError, OSError) as error:
            raise StoreError(one_line(error)) from error
        self._folder.write_json("records", cell.key, asdict(row))
        return row

    def fail(self, cell: Cell, reason: str) -> SampleRow:
        """Store a failed row for a cell that another process could not finish; a stored row stays."""
        stored = sample_row(self._folder, cell)
        row = stored or replace(self._row(cell), status="failed", error=reason)
        self._folder.write_json("records", cell.key, asdict(row))
        return row

    def needs_fit(self, cell: Cell) -> bool:
        """Return True if executing the cell has to fit first."""
        if cell.fit_key is None or cell.fit_key in self._failed_fits:
            return False
        in_memory = self._last_fit is not None and self._last_fit[0] == cell.fit_key
        return not in_memory and not self._fits(cell.fit_key).file(cell.fit_key).is_file()

    def write_inputs(self, case_id: str) -> None:
        """Store reference and target of a case, for people to look at.

        Raises:
            CaseError: If the case cannot be rendered.
            MediaError: If the files of the case cannot be read.
        """
        folder = self._folder.path / "inputs" / case_id
        if (folder / "target.png").is_file():
            return
        staged = self.stages[case_id]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_lossless(folder / "reference.mkv", staged.reference)
            write_preview(folder / "reference.mp4", staged.reference, preview_scale(staged.reference))
            write_png(folder / "target.png", staged.target)
        except (WriteError, OSError) as error:
            raise StoreError(one_line(error)) from error

    def _fits(self, fit_key: str) -> FitFolder:
        return FitFolder(self._folder.file("fits", fit_key).parent)

    def _row(self, cell: Cell) -> SampleRow:
        """Row of a cell without what making it adds."""
        row = missing_row(cell, self._version(cell), self._backbone.name, self._backbone.revision)
        return replace(row, status="ok", resize_rule=RESIZE_RULE if cell.kind == "submission" else None)

    def _made(self, cell: Cell) -> tuple[SampleRow, Video | None]:
        row = self._row(cell)
        if not self.stages.cases[cell.case_id].truth_known and self._needs_truth(cell):
            return replace(row, status="skipped", error=NO_TRUTH), None
        try:
            shown = self.stages[cell.case_id]
            makers = {"bound": self._bound, "method": self._method, "submission": self._submitted}
            row, video = self._with_room(cell, partial(makers[cell.kind], cell, shown, row))
            _check_output(video, self._backbone)
        except StoreError:
            raise
        except Exception as error:  # an error of a method is its result, not the end of the run
            if self._backbone.device.type == "cuda":
                torch.cuda.empty_cache()
            return replace(row, status="failed", error=error_text(error)), None
        path = self._folder.file("videos", f"{cell.key}.mkv")
        return replace(row, video=self._folder.relative(path), video_digest=frames_digest(video)), video

    def _with_room(self, cell: Cell, make: Callable[[], tuple[SampleRow, Video]]) -> tuple[SampleRow, Video]:
        """Make a video; where the GPU's memory does not suffice, once more with networks that take turns there."""
        try:
            return make()
        except torch.OutOfMemoryError as error:
            said = str(error)
        # Only here is the error gone, whose traceback holds tensors.
        if cell.kind != "method" or not self._begin_turns():
            raise torch.OutOfMemoryError(said)
        torch.cuda.empty_cache()
        self._failed_fits.pop(cell.fit_key or "", None)
        self._folder.log("offloads", f"{cell.method} on {cell.case_id}: {shortened(said, 200)}")
        return make()

    def _begin_turns(self) -> bool:
        backbone = self._backbone
        networks = {part: getattr(backbone, part) for part in NETWORKS}
        return begin_turns(networks, backbone.device, {"transformer"} if backbone.quantised else set())

    def _version(self, cell: Cell) -> int:
        if cell.kind == "submission":
            return RESIZE_VERSION
        return BOUNDS[cell.method].version if cell.kind == "bound" else self._methods[cell.method].version

    def _needs_truth(self, cell: Cell) -> bool:
        if cell.kind == "bound":
            return BOUNDS[cell.method].needs_truth
        return cell.method in self._told

    def _bound(self, cell: Cell, shown: Shown, row: SampleRow) -> tuple[SampleRow, Video]:
        return row, BOUNDS[cell.method].make(shown, self._backbone, cell.seed)

    def _submitted(self, cell: Cell, shown: Shown, row: SampleRow) -> tuple[SampleRow, Video]:
        taken = self._submissions[cell.method].taken((cell.case_id, cell.seed), format_of(self._backbone))
        return replace(row, **taken.row), taken.video

    def _method(self, cell: Cell, shown: Shown, row: SampleRow) -> tuple[SampleRow, Video]:
        method, case = self._methods[cell.method], self.stages.cases[cell.case_id]
        if cell.method in self._told:
            tell_keypoints(cast(ToldKeypoints, method), cast(Staged, shown))
        fit = self._fit(cell, method, shown, case.caption)
        request = Request(shown.target.copy(), case.prompt, cell.seed)
        with measured(self._backbone.device) as cost:
            video = method.transfer(fit.action, request)
        row = replace(
            row,
            fit_s=fit.seconds,
            transfer_s=cost.seconds,
            peak_memory_gib=max(fit.peak_gib, cost.peak_gib),
            action_mib=sum(t.numel() * t.element_size() for t in fit.action.values()) / _MIB,
        )
        return row, video

    def _fit(self, cell: Cell, method: ActionTransfer, shown: Shown, caption: str) -> Fit:
        assert cell.fit_key is not None
        if cell.fit_key in self._failed_fits:
            raise RuntimeError(f"the fit failed: {self._failed_fits[cell.fit_key]}")
        if self._last_fit is None or self._last_fit[0] != cell.fit_key:
            fit = self._load_fit(cell.fit_key)
            if fit is None:
                reference = shown.for_fit(getattr(method, "reads_crops", False))
                fit = self._new_fit(cell, method, reference, caption)
            self._last_fit = cell.fit_key, fit
        return self._last_fit[1]

    def _new_fit(self, cell: Cell, method: ActionTransfer, reference: Video, caption: str) -> Fit:
        assert cell.fit_key is not None
        cost, fits = Cost(), self._fits(cell.fit_key)
        try:
            with fits.resumable(cell.fit_key) as kept, measured(self._backbone.device) as cost:
                action = method.fit(reference, caption, seed=cell.fit_seed)
            action = _sound_action(action)
        except WriteError as error:  # of a checkpoint
            raise StoreError(str(error)) from error
        except Exception as error:
            self._failed_fits[cell.fit_key] = error_text(error)
            raise
        seconds = kept.earlier_s + cost.seconds
        header = {"cost": json.dumps({"seconds": seconds, "peak_gib": cost.peak_gib})}
        try:
            self._folder.room_for(fits.file(cell.fit_key))
            fits.save(cell.fit_key, action, header)
        except WriteError as error:
            raise StoreError(str(error)) from error
        kept.discard()
        return Fit(action, seconds, cost.peak_gib)

    def _load_fit(self, fit_key: str) -> Fit | None:
        """Load a stored fit; None if it is missing or damaged (then it is computed again)."""
        path = self._fits(fit_key).file(fit_key)
        try:
            kept = self._fits(fit_key).load(fit_key)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            if kept is not None:
                return Fit(kept[0], **json.loads(kept[1]["cost"]))
        except (KeyError, TypeError, ValueError):
            pass
        if path.is_file():
            self._folder.damaged(path)
        return None

    def _write_video(self, cell: Cell, video: Video) -> int:
        """Write the lossless video, whose size is returned, and the preview."""
        path = self._folder.room_for(self._folder.file("videos", f"{cell.key}.mkv"))
        write_lossless(path, video)
        preview = self._folder.room_for(self._folder.file("previews", f"{cell.key}.mp4"))
        write_preview(preview, video, preview_scale(video))
        return path.stat().st_size


def format_of(backbone: Backbone) -> Format:
    """Format of a backbone's videos."""
    return Format(backbone.num_frames, backbone.height, backbone.width, backbone.fps)


def preview_scale(video: Video) -> int:
    """Whole factor by which a preview is enlarged."""
    return max(1, math.floor(_PREVIEW_SIDE_PX / min(video.frames.shape[1:3])))


def _sound_action(action: Any) -> Action:
    """The tensors that a fit returned, on the CPU, as they can be stored."""
    if not isinstance(action, Mapping):
        raise ValueError(f"fit: expected tensors by name, got {type(action).__name__}")
    for name, tensor in action.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: the fit holds values that are not finite")
    return {name: tensor.detach().cpu().contiguous() for name, tensor in action.items()}


def _check_output(video: Any, backbone: Backbone) -> None:
    if not isinstance(video, Video):
        raise ValueError(f"video: expected a Video, got {type(video).__name__}")
    backbone.check_frames("video", video.frames, backbone.num_frames)
    if not math.isclose(video.fps, backbone.fps):
        raise ValueError(f"video: expected {backbone.fps} frames per second, got {video.fps}")
