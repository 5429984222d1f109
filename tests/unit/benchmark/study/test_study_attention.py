"""Moving tokens, settled energy and the measurements of a transfer, by hand and by slow means."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.study.__main__ import main, parser
from benchmark.study.attention import Plan, described, measured, sampled, settled_shares
from benchmark.study.regions import covered, regions
from benchmark.suites.case import Format
from benchmark.suites.puppets import load_suite
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import decode_latents
from flexiact.fits import FitFolder
from flexiact.method import FlexiAct
from flexiact.task import Request, Video
from metrics.features import Truth
from reports.studies.attention_study import publish
from tests.support.backbones import HEIGHT, WIDTH, save_tiny_refadapter, tiny_backbone

FORM = Format(9, HEIGHT, WIDTH, 8.0)
GRID = (3, 2, 3)  # of the tiny backbone: latent frames 3, tokens of 8 px


def truth_of(parts: np.ndarray, moved_px: float) -> Truth:
    """Two parts; the far end of the second one moves in the right answer, and is judged from frame 3 on."""
    keypoints = np.full((1, 9, 3, 2), 8.0)
    keypoints[0, 5, 2, 0] += moved_px
    keypoints[0, 1, 1, 0] += 5  # before anything is judged
    return Truth(
        keypoints=keypoints,
        target_keypoints=np.full((3, 2), 8.0),
        counted=np.ones(3, dtype=bool),
        first_scored_frame=3,
        first_settled_frame=4,
        frames=np.zeros((9, HEIGHT, WIDTH, 3), dtype=np.uint8),
        parts=parts,
        bones=np.array([[0, 1], [1, 2]]),
        bone_radii_px=np.ones(2),
        body_size_px=8.0,
    )


def test_tokens_are_inside_where_moving_parts_are():
    parts = np.full((9, HEIGHT, WIDTH), -1, dtype=np.int8)
    parts[:, :8, :8] = 1  # moves: a whole token at (0, 0), in every frame
    parts[1:5, 8:, 8:12] = 1  # half of the token at (1, 1), in the second latent frame alone
    parts[1:3, 8:, 16:19] = 1  # 3/16 of the token at (1, 2): too little
    parts[:, :8, 16:] = 0  # is at rest: token (0, 2)
    found = {name: mask.view(GRID) for name, mask in regions(truth_of(parts, 2.0), GRID, FORM).items()}
    assert found["inside"].nonzero().tolist() == [[1, 0, 0], [1, 1, 1], [2, 0, 0]]
    assert found["still"].nonzero().tolist() == [[1, 0, 2], [2, 0, 2]]
    assert (found["outside"][1:] == ~found["inside"][1:]).all() and not found["outside"][0].any()
    nothing = regions(truth_of(parts, 0.0), GRID, FORM)
    assert not nothing["inside"].any() and nothing["still"].sum() == 5


def test_cover_equals_the_slow_one():
    mask = np.random.default_rng(0).random((9, HEIGHT, WIDTH)) < 0.4
    found = covered(mask, GRID)
    assert tiny_backbone().token_grid == GRID == tuple(found.shape)
    for frame, row, column in np.ndindex(*GRID):
        frames = mask[1 + 4 * (frame - 1) : 1 + 4 * frame] if frame else mask[:0]
        pixels = frames[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert found[frame, row, column] == pytest.approx(pixels.mean() if frame else 0)


def test_settled_shares_of_waves():
    """The image, plus a low wave of amplitude 2 and a high one of amplitude 1; steps that have parts of them."""
    frames = torch.arange(8.0)
    image = torch.randn(1, 1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    low, high = (wave - wave[0] for wave in (torch.cos(torch.pi / 4 * frames), torch.cos(torch.pi * frames)))
    mixtures = [(0.0, 0.0), (1.0, 0.0), (1.5, 0.5), (2.0, 1.0)]
    clean = torch.cat([image + (a * low + b * high).view(1, 8, 1, 1, 1) for a, b in mixtures])
    found = settled_shares(clean, (1,))
    assert found["high"].tolist() == pytest.approx([0, 0, 0.75, 1], abs=1e-6)
    # Waves that begin at 0 have a mean, which is low too. Parseval: 8 mean^2 + 4 amplitude^2.
    parts = torch.tensor([[a * float(low.mean()) + b * float(high.mean()), a] for a, b in mixtures]).double()
    errors = (parts - parts[-1:]).square() @ torch.tensor([8.0, 4.0]).double()
    assert found["low"].tolist() == pytest.approx((1 - errors / errors[0]).tolist())
    still = settled_shares(image.expand(4, 8, -1, -1, -1), (3, 4))
    assert still["low"].isnan().all() and still["high"].isnan().all()


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_the_last_clean_latents_are_the_video_and_measuring_changes_nothing(
    scheduler: str, tmp_path: Path, reference: Video, target: np.ndarray
):
    adapter = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())
    backbone = tiny_backbone(scheduler=scheduler, refadapter=adapter)
    method = FlexiAct.from_preset(backbone, fit_steps=2)
    action, request = method.fit(reference, "a red dog jumps", seed=0), Request(target, "a blue bird", 3)
    alone = method.transfer(action, request).frames
    found = sampled(method, action, request)
    assert method.config.transfer.resolved(backbone)[1] > 1  # guided
    assert found.timesteps == [999, 749, 499, 249]
    assert found.shares.shape == (4, 2, backbone.num_video_tokens) and 0 < found.shares.min() < found.shares.max() < 1
    assert np.abs(decode_latents(backbone, found.clean[-1:])[0].astype(int) - alone).max() <= 1
    np.testing.assert_array_equal(method.transfer(action, request).frames, alone)


def test_a_study_from_fit_to_page(backbone: Backbone, tmp_path: Path):
    suite, plan, fits = load_suite("puppets-dev"), Plan(2, 1, fit_steps=2), FitFolder(tmp_path / "fits")
    shares, settled = measured(suite, backbone, fits, plan)
    assert shares.groupby(["case_id", "embedding", "step", "block", "region"]).size().eq(1).all()
    assert len(shares) == 2 * 3 * 4 * 2 * 3 and len(settled) == 2 * 3 * 4 * 2 * 2
    assert shares["reference_id"].nunique() == 2
    # The first step starts from the same noise, and the first block sees the same states: the bias alone differs.
    first = shares[(shares["step"] == 0) & (shares["block"] == 0) & (shares["region"] == "outside")]
    wide = first.pivot(index="case_id", columns="embedding", values="share")
    odds = wide["scheduled"] / (1 - wide["scheduled"]) / (wide["fitted"] / (1 - wide["fitted"]))
    alpha = FlexiAct.preset(backbone).transfer.schedule.alpha
    assert (odds > 1.2).all() and (odds < np.exp(alpha)).all()  # equal if all heads and tokens had one share
    assert ((wide["unfitted"] - wide["fitted"]).abs() > 1e-4).all()
    assert (settled[settled["step"] == 3]["settled"].dropna() == 1).all()
    made = sorted(fits.path.iterdir())
    times = [file.stat().st_mtime_ns for file in made]
    again = measured(suite, backbone, fits, plan)
    assert len(made) == 2 and [file.stat().st_mtime_ns for file in made] == times
    assert again[0].equals(shares) and again[1].equals(settled)
    text = publish(shares, settled, described(suite, backbone, plan) | {"command": "it"}, tmp_path / "page").read_text()
    assert "fewer than 6 references" in text and "2 cases of 2 references" in text and "2 steps of fitting" in text


def test_amounts_that_the_suite_or_the_sampler_cannot_give_are_refused(backbone: Backbone, tmp_path: Path):
    suite, fits = load_suite("puppets-dev"), FitFolder(tmp_path)
    for plan, fault in ((Plan(13, 1), "references: expected 1 to 12"), (Plan(1, 0), "targets: expected 1 to 2")):
        with pytest.raises(ValueError, match=fault):
            measured(suite, backbone, fits, plan)
    with pytest.raises(ValueError, match="steps: expected 3 or more, got 2"):
        measured(suite, replace(backbone, num_inference_steps=2), fits, Plan(1, 1))


def test_the_command_takes_a_subject_and_without_one_is_that_of_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    taken: list[str] = []
    for subject in ("metrics", "attention"):
        monkeypatch.setattr(
            f"benchmark.study.__main__._study_{subject}",
            lambda options: taken.append(f"{options.subject} {options.suite}"),
        )
    out = ["--publish", str(tmp_path)]
    assert [main([*words, *out]) for words in ([], ["metrics"], ["attention"])] == [0, 0, 0]
    assert taken == ["metrics puppets", "metrics puppets", "attention puppets-dev"]
    monkeypatch.undo()
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)
    assert main(["attention", "--suite", "none", *out]) == 2
    assert capsys.readouterr().err.startswith("error: unknown suite 'none'")
    for subject in ("metrics", "attention"):
        with pytest.raises(SystemExit):
            parser().parse_args([subject, "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
