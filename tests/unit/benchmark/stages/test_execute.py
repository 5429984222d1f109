"""One cell at a time: what is stored, what a failure leaves, and what the harness measures."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.planning.plan import Cell
from benchmark.stages import execute
from benchmark.stages.execute import Executor, preview_scale
from benchmark.stages.metering import measured
from benchmark.store.folder import RunFolder, StoreError
from flexiact.media.files import read_tensors
from flexiact.media.image import read_image
from flexiact.media.video import frames_digest, read_video
from flexiact.task import Video
from tests.support.harness import CASES

CELL = Cell("key1", "fit1", "m", "method", CASES[0].case_id, 5, 5)


class Shifter:
    """Learns a number from the reference and adds it to the target."""

    method_id = "Shifter"
    version = 3
    uses_reference = True

    def __init__(self, backbone) -> None:
        self.backbone = backbone
        self.fits = 0

    def fit_config(self) -> dict:
        return {}

    def transfer_config(self) -> dict:
        return {}

    def fit(self, reference: Video, caption: str, *, seed: int) -> dict:
        self.fits += 1
        reference.frames[:] = 0  # a method may do this; nobody else may notice
        return {"x": torch.tensor([float(seed), float(len(caption))])}

    def transfer(self, action, request) -> Video:
        frames = np.repeat(request.target[None], self.backbone.num_frames, axis=0) + np.uint8(action["x"].sum())
        request.target[:] = 0
        return Video(frames, self.backbone.fps)


class TellsSeeds(Shifter):
    def transfer(self, action, request):
        raise ValueError(f"fitted with {action['x'][0]:.0f}, made with {request.seed}")


class FailingFit(Shifter):
    def fit(self, reference, caption, *, seed):
        self.fits += 1
        raise RuntimeError("no\nluck today")


class NanFit(Shifter):
    def fit(self, reference, caption, *, seed):
        return {"x": torch.tensor([math.nan])}


class FailingTransfer(Shifter):
    def transfer(self, action, request):
        raise MemoryError


class ShortVideo(Shifter):
    def transfer(self, action, request):
        return Video(super().transfer(action, request).frames[1:], self.backbone.fps)


class WrongRate(Shifter):
    def transfer(self, action, request):
        return Video(super().transfer(action, request).frames, 3.0)


class NoVideo(Shifter):
    def transfer(self, action, request):
        return super().transfer(action, request).frames


class WrongShape(Shifter):
    def transfer(self, action, request):
        return Video(super().transfer(action, request).frames[:, :-1], self.backbone.fps)


class NanFrames(Shifter):
    def transfer(self, action, request):
        return Video(np.full_like(super().transfer(action, request).frames, math.nan, np.float32), self.backbone.fps)


class NoAction(Shifter):
    def fit(self, reference, caption, *, seed):
        return [torch.zeros(2)]


class NumbersForTensors(Shifter):
    def fit(self, reference, caption, *, seed):
        return {"x": 1.0}


class TooLarge(Shifter):
    def fit(self, reference, caption, *, seed):
        return {"x": torch.zeros(2**50)}


@pytest.fixture
def folder(tmp_path: Path):
    opened = RunFolder(tmp_path / "run")
    with opened.opened():
        yield opened


def executor(folder: RunFolder, backbone, method) -> Executor:
    return Executor(folder, backbone, {"m": method, "n": method}, {case.case_id: case for case in CASES})


def test_a_video_is_stored_with_its_row(folder: RunFolder, backbone) -> None:
    method = Shifter(backbone)
    row = executor(folder, backbone, method).execute(CELL)
    assert (row.status, row.error, row.method_version, row.seed) == ("ok", None, 3, 5)
    video = read_video(folder.path / row.video)
    assert frames_digest(video) == row.video_digest
    assert video.frames.shape == (backbone.num_frames, backbone.height, backbone.width, 3)
    assert folder.read_json("records", "key1") == asdict(row)
    assert read_video(folder.file("previews", "key1.mp4")).frames.shape[0] == backbone.num_frames
    assert row.fit_s > 0 and row.transfer_s > 0 and row.peak_memory_gib > 0
    assert row.action_mib == pytest.approx(8 / 2**20)


def test_a_fit_gets_its_own_seed_and_the_video_the_other(folder: RunFolder, backbone) -> None:
    runner = executor(folder, backbone, TellsSeeds(backbone))
    row = runner.execute(Cell("key1", "fit1", "m", "method", CASES[0].case_id, 5, 8))
    assert (row.seed, row.fit_seed, row.error) == (5, 8, "ValueError: fitted with 8, made with 5")


class CountsCrops(Shifter):
    def fit(self, reference, caption, *, seed):
        return {"x": torch.tensor([float(len(reference.crops)), 0.0])}


@pytest.mark.parametrize(("reads", "found"), [(True, 12), (False, 0), (None, 0)])
def test_a_method_that_reads_crops_gets_them(
    folder: RunFolder, backbone, monkeypatch: pytest.MonkeyPatch, reads: bool | None, found: int
) -> None:
    method = CountsCrops(backbone)
    if reads is not None:
        method.reads_crops = reads
    runner = executor(folder, backbone, method)
    shown = runner.stages[CASES[0].case_id]
    crops = tuple(shown.reference.frames for _ in range(12))
    monkeypatch.setattr(runner.stages, "_shown", lambda case_id: replace(shown, read_crops=lambda: crops))
    assert runner.execute(CELL).status == "ok"
    tensors, _ = read_tensors(folder.file("fits", "fit1.safetensors"))
    assert tensors["x"].tolist() == [found, 0]


def test_a_fit_is_computed_once_and_found_again_with_its_cost(folder: RunFolder, backbone) -> None:
    method = Shifter(backbone)
    runner = executor(folder, backbone, method)
    assert runner.needs_fit(CELL)
    first = runner.execute(CELL)
    second = runner.execute(Cell("key2", "fit1", "n", "method", CASES[1].case_id, 5, 5))
    later = executor(folder, backbone, method)
    assert not later.needs_fit(CELL)
    third = later.execute(Cell("key3", "fit1", "m", "method", CASES[0].case_id, 5, 5))
    assert method.fits == 1
    assert first.fit_s == second.fit_s == third.fit_s
    assert first.video_digest == third.video_digest


def test_every_cell_is_made_with_its_own_fit(folder: RunFolder, backbone) -> None:
    method = Shifter(backbone)
    runner = executor(folder, backbone, method)
    cells = [Cell(f"s{seed}", f"f{seed}", "m", "method", CASES[0].case_id, seed, seed) for seed in (5, 6)]
    first, second = (runner.execute(cell).video_digest for cell in cells)
    alone = executor(folder, backbone, method).execute(cells[1]).video_digest  # its fit is found on disk
    assert method.fits == 2 and first != second == alone


def test_a_damaged_fit_is_computed_again(folder: RunFolder, backbone) -> None:
    method = Shifter(backbone)
    before = executor(folder, backbone, method).execute(CELL)
    path = folder.file("fits", "fit1.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    after = executor(folder, backbone, method).execute(CELL)
    assert method.fits == 2
    assert before.video_digest == after.video_digest


def test_a_method_cannot_change_what_others_see(folder: RunFolder, backbone) -> None:
    runner = executor(folder, backbone, Shifter(backbone))
    rows = [runner.execute(Cell(f"k{i}", f"f{i}", "m", "method", CASES[0].case_id, 5, 5)) for i in range(2)]
    assert rows[0].video_digest == rows[1].video_digest


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailingFit, "RuntimeError: no luck today"),
        (NanFit, "ValueError: x: the fit holds values that are not finite"),
        (FailingTransfer, "MemoryError"),
        (ShortVideo, "ValueError: video: expected 9 frames, got 8"),
        (WrongRate, "ValueError: video: expected 8.0 frames per second, got 3.0"),
        (NoVideo, "ValueError: video: expected a Video, got ndarray"),
        (WrongShape, "ValueError: video: expected 16x24 px (height x width), got 15x24"),
        (NanFrames, "ValueError: frames: expected uint8 [T H W 3], got float32"),
        (NoAction, "ValueError: fit: expected tensors by name, got list"),
        (NumbersForTensors, "ValueError: x: expected a tensor, got float"),
    ],
)
def test_a_failure_is_a_row_and_leaves_no_video(folder: RunFolder, backbone, kind, error: str) -> None:
    row = executor(folder, backbone, kind(backbone)).execute(CELL)
    assert (row.status, row.error, row.video, row.video_digest) == ("failed", error, None, None)
    assert not any(folder.file("videos", "").iterdir())
    assert folder.read_json("records", "key1")["status"] == "failed"


def test_memory_that_cannot_be_had_fails_one_video_alone(folder: RunFolder, backbone) -> None:
    runner = Executor(folder, backbone, {"m": TooLarge(backbone), "n": Shifter(backbone)}, {CASES[0].case_id: CASES[0]})
    row = runner.execute(CELL)
    assert row.status == "failed" and "can't allocate memory" in row.error and "\n" not in row.error
    assert runner.execute(Cell("key2", "fit2", "n", "method", CASES[0].case_id, 5, 5)).status == "ok"


class NoRoom(Shifter):
    """Finds no room on the GPU for its first fits."""

    full = 1

    def fit(self, reference, caption, *, seed):
        if self.fits < self.full:
            self.fits += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().fit(reference, caption, seed=seed)


@pytest.mark.parametrize(("full", "status"), [(1, "ok"), (2, "failed")])
def test_without_room_on_the_gpu_a_video_is_tried_once_more_with_networks_that_take_turns(
    folder: RunFolder, backbone, monkeypatch: pytest.MonkeyPatch, full: int, status: str
) -> None:
    asked = []
    monkeypatch.setattr(execute, "begin_turns", lambda networks, *rest: not asked.append(set(networks)))
    method = NoRoom(backbone)
    method.full = full
    row = executor(folder, backbone, method).execute(CELL)
    assert (row.status, asked) == (status, [{"text_encoder", "transformer", "vae"}])
    assert status == "ok" or row.error == "OutOfMemoryError: CUDA out of memory"
    assert "  offloads  m on " in (folder.path / "log.txt").read_text()


def test_on_a_cpu_nothing_takes_turns(folder: RunFolder, backbone) -> None:
    assert executor(folder, backbone, NoRoom(backbone)).execute(CELL).error == "OutOfMemoryError: CUDA out of memory"
    assert not (folder.path / "log.txt").exists()


def test_a_failed_fit_is_not_tried_again_for_the_next_target(folder: RunFolder, backbone) -> None:
    method = FailingFit(backbone)
    runner = executor(folder, backbone, method)
    runner.execute(CELL)
    row = runner.execute(Cell("key2", "fit1", "m", "method", CASES[1].case_id, 5, 5))
    assert method.fits == 1
    assert row.error == "RuntimeError: the fit failed: RuntimeError: no luck today"
    assert not runner.needs_fit(CELL)


def test_a_disk_that_refuses_stops_the_run(folder: RunFolder, backbone) -> None:
    folder.file("videos", "").rmdir()
    folder.file("videos", "").write_text("in the way")
    with pytest.raises(StoreError, match="key1.mkv"):
        executor(folder, backbone, Shifter(backbone)).execute(CELL)
    assert folder.read_json("records", "key1") is None


def test_a_bound_costs_nothing(folder: RunFolder, backbone) -> None:
    row = executor(folder, backbone, Shifter(backbone)).execute(
        Cell("key4", None, "still", "bound", CASES[0].case_id, 0, 0)
    )
    assert (row.status, row.fit_key, row.fit_s, row.transfer_s, row.action_mib) == ("ok", None, None, None, None)


def test_inputs_are_stored_for_people(folder: RunFolder, backbone) -> None:
    runner = executor(folder, backbone, Shifter(backbone))
    runner.write_inputs(CASES[0].case_id)
    inputs = folder.path / "inputs" / CASES[0].case_id
    assert sorted(p.name for p in inputs.iterdir()) == ["reference.mkv", "reference.mp4", "target.png"]
    assert read_image(inputs / "target.png").shape == (backbone.height, backbone.width, 3)


@pytest.mark.parametrize(("side", "scale"), [(64, 4), (16, 16), (480, 1)])
def test_previews_are_large_enough_to_see(side: int, scale: int) -> None:
    assert preview_scale(Video(np.zeros((1, side, side * 2, 3), np.uint8), 8.0)) == scale


def test_cost_is_measured_even_when_the_work_fails() -> None:
    with pytest.raises(ValueError), measured(torch.device("cpu")) as cost:
        block = np.ones(40_000_000)  # 305 MiB
        raise ValueError(len(block))
    assert cost.seconds > 0
    assert cost.peak_gib > 0.3


def test_peak_memory_is_that_of_the_block_not_of_the_past() -> None:
    with measured(torch.device("cpu")) as large:
        block = np.ones(60_000_000)
        del block
    with measured(torch.device("cpu")) as small:
        pass
    assert large.peak_gib - small.peak_gib > 0.3
