"""The judges' recipes, the degradations they are trained and measured on, and the shipped image-and-text judge."""

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP

from flexiact import PUPPET_WEIGHTS
from flexiact.pose.estimators import build_model
from flexiact.pose.mmpose_import import import_mmpose, quiet
from flexiact.puppets.cards import clip_judge as judge_clip_card
from flexiact.puppets.cards import pose_judge as judge_pose_card
from flexiact.puppets.recipes.judges import clip_judge as judge_clip
from flexiact.puppets.recipes.judges import degrade
from flexiact.puppets.recipes.judges import pose_judge as judge_pose
from flexiact.puppets.world.captions import caption, vocabulary
from flexiact.puppets.world.clip import SIZE
from flexiact.puppets.world.scene import random_scene

SHIPPED_CLIP = PUPPET_WEIGHTS / "clip"
shipped_only = pytest.mark.skipif(
    not (SHIPPED_CLIP / "model.safetensors").exists(), reason="no weights in this checkout"
)
CPU = torch.device("cpu")


def _frames(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


# ---- degradations


@pytest.mark.parametrize("name", [*judge_pose_card.conditions()])
def test_degradations_keep_shape_and_a_flat_image(name: str) -> None:
    how = judge_pose_card.conditions()[name]
    assert how(_frames()).shape == (4, 3, SIZE, SIZE)
    flat = torch.full((2, 3, SIZE, SIZE), 0.5)
    tolerance = 1.0 if "noise" in name else 0.05  # a coarse step moves the mean itself
    assert (how(flat) - flat).abs().max() < tolerance


def test_a_fine_step_keeps_every_pixel_and_a_coarse_one_does_not() -> None:
    frames = _frames()
    torch.testing.assert_close(degrade.jpeg_like(frames, 1e-5), frames, atol=1e-3, rtol=0)
    assert (degrade.jpeg_like(frames, 0.1) - frames).abs().mean() > 0.02


def test_blur_equals_opencv() -> None:
    import cv2

    frames = _frames(1)
    ours = degrade.blur(frames, 1.5)[0].permute(1, 2, 0).numpy()
    theirs = cv2.GaussianBlur(frames[0].permute(1, 2, 0).numpy(), (11, 11), 1.5, borderType=cv2.BORDER_REPLICATE)
    radius = 5  # round(3 * 1.5) = 4 taps a side against OpenCV's 5: equal up to the tails
    np.testing.assert_allclose(ours[radius:-radius, radius:-radius], theirs[radius:-radius, radius:-radius], atol=5e-3)


def test_shuffled_blocks_are_the_same_blocks_elsewhere() -> None:
    frames = _frames()
    mixed = degrade.shuffle_blocks(frames, torch.Generator().manual_seed(1))
    assert not torch.equal(mixed, frames)
    torch.testing.assert_close(mixed.flatten(1).sort().values, frames.flatten(1).sort().values)
    block = frames[0, :, :16, :16]
    found = [
        torch.equal(block, mixed[0, :, y : y + 16, x : x + 16]) for y in range(0, 64, 16) for x in range(0, 64, 16)
    ]
    assert sum(found) == 1


def test_random_degradation_is_seeded_pure_and_leaves_some_frames_clean() -> None:
    frames, others = _frames(32), _frames(32).roll(1, 0)
    kept = frames.clone()
    one, two = (degrade.random_degradation(frames, others, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(frames, kept)
    assert 0 < int((one == frames).all(3).all(2).all(1).sum()) < 32
    assert one.min() >= 0 and one.max() <= 1


# ---- pose recipe


def test_labels_are_those_of_mmposes_codec() -> None:
    codecs = import_mmpose("mmpose.codecs")
    settings = {k: v for k, v in judge_pose.pose_config()["codec"].items() if k != "type"}
    points = (torch.rand(3, 13, 2, generator=torch.Generator().manual_seed(3)) * 126).round() / 2
    exists = torch.ones(3, 13, dtype=torch.bool)
    exists[1, 4] = False
    x, y, weights = judge_pose.simcc_labels(points, exists)
    codec = codecs.SimCCLabel(**settings)
    theirs = codec.encode(points.numpy(), exists.numpy().astype(np.float32))
    np.testing.assert_allclose(x.numpy(), theirs["keypoint_x_labels"], atol=1e-6)
    np.testing.assert_allclose(y.numpy(), theirs["keypoint_y_labels"], atol=1e-6)
    assert weights[1, 4] == judge_pose.FLAT_WEIGHT and (weights[exists] == 1).all()


def test_points_far_outside_the_frame_do_not_count_and_near_ones_lie_on_its_border() -> None:
    points = torch.full((1, 13, 2), 30.0)
    points[0, 0, 0], points[0, 1, 0] = -3.0, -30.0
    x, _, weights = judge_pose.simcc_labels(points, torch.ones(1, 13, dtype=torch.bool))
    assert x[0, 0].argmax() == 0 and weights[0, 0] == 1 and weights[0, 1] == 0


def test_the_batched_loss_is_mmposes_loss_of_single_samples() -> None:
    structures, containers = import_mmpose("mmpose.structures"), import_mmpose("mmengine.structures")
    model = build_model(judge_pose.pose_config(), seed=1).eval()
    images = _frames()
    points = torch.rand(4, 13, 2, generator=torch.Generator().manual_seed(4)) * 60
    exists = torch.rand(4, 13, generator=torch.Generator().manual_seed(5)) < 0.7
    ours = judge_pose.pose_loss(model, images, points, exists)
    samples = []
    for x, y, w in zip(*judge_pose.simcc_labels(points, exists), strict=True):
        labels = containers.InstanceData(keypoint_x_labels=x[None], keypoint_y_labels=y[None], keypoint_weights=w[None])
        samples.append(structures.PoseDataSample(gt_instance_labels=labels))
    with quiet():
        theirs = model.loss((images * 255 - 127.5) / 64, samples)["loss_kpt"] / 4
    torch.testing.assert_close(ours, theirs)


def test_training_frames_are_rendered_once_and_batches_are_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_pose, "BATCH", 100)
    pool = judge_pose.render_pool(tmp_path, 6, 1)
    stamp = (tmp_path / "frames.npy").stat().st_mtime_ns
    again = judge_pose.render_pool(tmp_path, 6, 1)
    assert (tmp_path / "frames.npy").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(pool.frames, again.frames)
    one, two = (judge_pose.draw_batch(pool, torch.Generator().manual_seed(6), CPU) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    images, _, exists = one
    assert images.shape == (100, 3, SIZE, SIZE) and 0 <= images.min() and images.max() <= 1
    assert 0 < int((~exists.any(1)).sum()) < 30  # some figureless frames, not many


@pytest.mark.slow
def test_pose_recipe_resumes_to_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_pose, "POOL_SCENES", 8)
    monkeypatch.setattr(judge_pose, "BATCH", 4)
    monkeypatch.setattr(judge_pose, "calibrated", lambda folder, config: config)
    monkeypatch.setattr(judge_pose, "write_card", lambda folder, steps, seed: {"pck": 0.0})

    def digest(name: str) -> str:
        judge_pose.train_pose(tmp_path / name, tmp_path / f"{name}-out", 3, 0)
        return hashlib.sha256((tmp_path / f"{name}-out" / "model.safetensors").read_bytes()).hexdigest()

    assert digest("one") == digest("two") == digest("two")


@pytest.mark.slow
def test_pose_card_is_written_for_any_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = judge_pose_card.held_out("test", 5, 1)
    monkeypatch.setattr(judge_pose_card, "held_out", lambda *_: small)
    config = judge_pose.pose_config()
    judge_pose.save_half(build_model(config, seed=0), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    fitted = judge_pose_card.calibrated(tmp_path, config)
    assert 0.3 <= fitted["scoring"]["threshold"] <= 1
    figures = judge_pose_card.write_card(tmp_path, 1, 0)
    assert set(figures) == {"pck", "agreement"}
    assert "{" not in (tmp_path / "README.md").read_text()


# ---- image-and-text recipe


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(judge_clip.clip_config()))
    judge_clip.write_tokenizer(folder)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    judge_pose.save_half(model, folder / "model.safetensors")
    return folder


def test_open_clip_loads_the_folder_as_its_own_class(untrained: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{untrained}")
    assert type(model) is CLIP
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    ours = judge_clip.normalised(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, judge_clip.clip_config())
    torch.testing.assert_close(preprocess(image), ours)


def test_tokenizer_knows_every_word_of_the_captions(untrained: Path) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{untrained}")
    tokens = tokenizer([f"{word}" for word in vocabulary()])
    assert tokens.shape == (len(vocabulary()), judge_clip.CONTEXT_LENGTH)
    assert len(set(tokens[:, 1].tolist())) == len(vocabulary()) and int(tokens[:, 1].min()) > 3
    assert tokenizer(["zebra"])[0, :4].tolist() == [1, 3, 2, 0]
    generator = torch.Generator().manual_seed(0)
    text = caption(random_scene(generator, "test"), (), "subject")
    assert (tokenizer([text])[0] != 3).all() and torch.equal(tokenizer([text]), tokenizer([text.upper()]))


def test_random_captions_always_say_who() -> None:
    generator = torch.Generator().manual_seed(1)
    levels = ["plain red blue dog, left, large, profile"] * 2 + ["plain red blue dog, left, large, profile, body hops"]
    texts = {judge_clip.random_caption(levels, generator) for _ in range(100)}
    assert all(t.startswith("plain red blue dog") for t in texts) and len(texts) > 4


def test_pairs_show_one_figure(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    scene = random_scene(generator, "judge")
    others = [judge_clip.other_look(scene, generator) for _ in range(20)]
    assert all((o.skin, o.rig, o.proportions) == (scene.skin, scene.rig, scene.proportions) for o in others)
    assert 0 < sum(o.backdrop == scene.backdrop for o in others) < 20
    pool = judge_clip.render_pool(tmp_path, 3, 0)
    assert pool.frames.shape == (3, 2, 2, SIZE, SIZE, 3) and len(pool.captions) == 3
    assert judge_clip.render_pool(tmp_path, 3, 0).captions == pool.captions


@pytest.mark.slow
def test_clip_recipe_resumes_to_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_clip, "POOL_SCENES", 6)
    monkeypatch.setattr(judge_clip, "BATCH", 4)
    monkeypatch.setattr(judge_clip_card, "GALLERIES", 1)

    def digest(name: str) -> str:
        figures = judge_clip.train_clip(tmp_path / name, tmp_path / f"{name}-out", 2, 0)
        assert set(figures) == {"image_to_text", "text_to_image", "identity"}
        return hashlib.sha256((tmp_path / f"{name}-out" / "model.safetensors").read_bytes()).hexdigest()

    assert digest("one") == digest("two") == digest("two")


@shipped_only
def test_shipped_judge_tells_figures_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_clip_card, "GALLERIES", 2)
    pairs = judge_clip_card.held_out()
    model = open_clip.create_model_from_pretrained(f"local-dir:{SHIPPED_CLIP}", return_transform=False)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{SHIPPED_CLIP}")
    first, second = (judge_clip_card.embed_images(model, images) for images in pairs.images)
    said = judge_clip_card.embed_texts(model, tokenizer, pairs.captions[0])
    assert judge_clip_card.retrieval(first, said) > 0.5  # chance is 1/32
    assert judge_clip_card.retrieval(first, second) > 0.5
