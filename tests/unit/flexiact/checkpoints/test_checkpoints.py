"""The release's files: every name of the 5B model, the numbers of its arithmetic, and round trips by the bit."""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.backbone.cogvideox import COGVIDEOX_5B_I2V
from flexiact.backbone.specs import BACKBONES
from flexiact.checkpoints.authors import Sizes, checked, load_release, save_release
from flexiact.checkpoints.convert import ALPHA, export_file, import_file, show
from flexiact.checkpoints.ours import action_of, load_action, load_refadapter, release_of, save_action, save_refadapter
from flexiact.embedding import ACTION_KEY, FrequencyAwareEmbedding, spread
from flexiact.media.video import frames_digest, write_lossless
from flexiact.method import PRESETS, FitConfig, FlexiAct, FlexiActConfig, TransferConfig
from flexiact.refadapter import CONFIG_FILE, WEIGHTS_FILE, RefAdapter
from flexiact.sampling import Denoiser
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone, tiny_transformer
from tests.support.release_files import TINY, dense, embedding_state, refadapter_state, written
from tests.support.slow_attention import random_inputs, slow_prediction

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj": "to_out.0"}


def assert_same(path: Path, state: OrderedDict) -> None:
    """The file holds the tensors: names in order, shapes, types, and every bit."""
    found = torch.load(path, weights_only=True)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        bits = torch.int32 if tensor.dtype == torch.float32 else torch.int16
        assert torch.equal(found[name].view(bits), tensor.contiguous().view(bits)), name


@pytest.fixture(scope="module")
def published() -> CogVideoXTransformer3DModel:
    """The 5B transformer without memory."""
    with torch.device("meta"):
        return CogVideoXTransformer3DModel(**COGVIDEOX_5B_I2V.transformer)


@pytest.fixture
def large(published: CogVideoXTransformer3DModel) -> Backbone:
    """A backbone with the 5B transformer."""
    return replace(tiny_backbone(), transformer=published, device=torch.device("meta"))


# ---------------------------------------------------------------------------------------------------- the 5B model


def test_sizes_of_the_published_model(published: CogVideoXTransformer3DModel):
    assert Sizes.of(published) == Sizes(42, 3072)
    settings_ = BACKBONES["cogvideox-5b-i2v"].settings
    config = published.config
    assert (settings_["height"], settings_["width"]) == (8 * config.sample_height, 8 * config.sample_width)
    assert settings_["num_frames"] == config.sample_frames
    assert settings_["max_text_tokens"] == config.max_text_seq_length


def test_published_refadapter_fits_the_5b_model(published: CogVideoXTransformer3DModel, tmp_path: Path):
    state = refadapter_state(Sizes(42, 3072), 64, torch.bfloat16)
    assert len(state) == 336 and sum(tensor.numel() for tensor in state.values()) == 66_060_288
    path = written(state, tmp_path / "refnetlora_step40000_model.pt")
    release = load_release(path, Sizes.of(published))
    assert (release.kind, release.inner, release.dtype, release.source) == ("refadapter", 64, "bfloat16", path.name)
    folder = tmp_path / "ours"
    save_refadapter(release, folder, ALPHA, {})
    made = RefAdapter(published, rank=64, alpha=ALPHA)
    made_state = {name: tensor.shape for name, tensor in made._layers.state().items()}
    back, alpha, _ = load_refadapter(folder, Sizes.of(published))
    ours = {name.removeprefix("base_model.model."): shape for name, shape in peft_shapes(folder).items()}
    assert ours == made_state and alpha == ALPHA == 32
    save_release(back, tmp_path / "again.pt")
    assert_same(tmp_path / "again.pt", state)


def peft_shapes(folder: Path) -> dict[str, torch.Size]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        return {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def test_published_embedding_fits_the_5b_model(large: Backbone, tmp_path: Path):
    state = embedding_state(Sizes(42, 3072), 226, torch.bfloat16)
    path = written(state, tmp_path / "rotate.pt")
    release = load_release(path, Sizes.of(large.transformer))
    assert (release.kind, release.inner, len(release.tensors)) == ("embedding", 226, 42)
    action = action_of(release)
    assert action[ACTION_KEY].shape == (42, 226, 3072) and action[ACTION_KEY].dtype == torch.float32
    assert FrequencyAwareEmbedding.from_action(action, large).tokens.shape == (42, 226, 3072)
    save_release(release_of(action, Sizes.of(large.transformer), "bfloat16"), tmp_path / "again.pt")
    assert_same(tmp_path / "again.pt", state)


@pytest.mark.slow
def test_both_attach_to_the_5b_model(large: Backbone):
    with torch.device("meta"):
        rotary = torch.empty(17_550, 64), torch.empty(17_550, 64)
        latents, text = torch.empty(1, 13, 32, 60, 90), torch.empty(1, 226, 4096)
        tokens, timestep = torch.empty(42, 226, 3072), torch.empty(1)
    adapter = RefAdapter(large.transformer, rank=64, alpha=ALPHA)
    with adapter.attached(0.7), extra_tokens_attached(large.transformer), torch.no_grad():
        wrapped = sum(type(module).__module__.startswith("peft") for module in large.transformer.modules())
        embedding = FrequencyAwareEmbedding(tokens)
        predicted = large.transformer(
            latents, text, timestep, image_rotary_emb=rotary, attention_kwargs=embedding.attention_kwargs(0.331)
        ).sample
    assert wrapped >= 4 * 42 and predicted.shape == (1, 13, 16, 60, 90)


# ------------------------------------------------------------------------------------------------------- numbers


def folded(state: OrderedDict, weight: float) -> Backbone:
    """A backbone with the release's products in its weights: weight * alpha / rank * up @ down, alpha 32."""
    backbone = tiny_backbone()
    for block in range(2):
        for old, new in LAYERS.items():
            name = f"transformer_blocks.{block}.attn1.processor.lora_{old}"
            down, up = state[f"{name}.down.weight"], state[f"{name}.up.weight"]
            layer = backbone.transformer.get_submodule(f"transformer_blocks.{block}.attn1.{new}")
            layer.weight.data += weight * 32 / len(down) * (up @ down)
    return backbone


@pytest.mark.parametrize("bias", [0.0, 0.331, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_imported_files_give_the_release_s_numbers(weight: float, bias: float, tmp_path: Path):
    lora, tokens = dense(refadapter_state(TINY, 64)), dense(embedding_state(TINY, 5))
    lora = OrderedDict((name, tensor * 0.2) for name, tensor in lora.items())
    import_file(written(lora, tmp_path / "lora.pt"), tmp_path / "adapter", "none")
    import_file(written(tokens, tmp_path / "fae.pt"), tmp_path / "fae.safetensors", "none")
    backbone = tiny_backbone()
    inputs, plain = random_inputs(backbone), Denoiser(backbone)(*random_inputs(backbone))
    adapter = RefAdapter.load(tmp_path / "adapter", backbone.transformer)
    embedding = FrequencyAwareEmbedding.from_action(load_action(tmp_path / "fae.safetensors")[0], backbone)
    with adapter.attached(weight), extra_tokens_attached(backbone.transformer):
        ours = Denoiser(backbone)(*inputs, embedding.attention_kwargs(bias))
    slow = slow_prediction(folded(lora, weight), inputs, torch.cat(list(tokens.values())), bias)
    torch.testing.assert_close(ours, slow, atol=2e-5, rtol=1e-5)
    assert (ours - plain).abs().max() > 1e-2
    if weight:
        other = slow_prediction(folded(lora, weight / 2), inputs, torch.cat(list(tokens.values())), bias)
        assert (ours - other).abs().max() > 1e-3  # another scale would show


def test_released_preset_is_the_paper_s_without_the_bias(tmp_path: Path):
    released, paper = PRESETS["released"], PRESETS["paper"]
    assert released.fit == paper.fit
    assert released.transfer == replace(paper.transfer, schedule=None)
    assert released.transfer.refadapter_weight == 0.7


def test_videos_are_made_from_imported_files_and_survive_an_export(tmp_path: Path):
    lora, tokens = dense(refadapter_state(TINY, 4)), dense(embedding_state(TINY, 5))
    import_file(written(lora, tmp_path / "lora.pt"), tmp_path / "adapter", "none")
    import_file(written(tokens, tmp_path / "fae.pt"), tmp_path / "fae.safetensors", "none")
    backbone = tiny_backbone(refadapter=tmp_path / "adapter")
    config = PRESETS["released"].changed(num_inference_steps=2)
    request = Request(random_frames(2, num_frames=1)[0], "a red dog jumps", 3)
    method = FlexiAct(backbone, config)
    first = method.transfer(load_action(tmp_path / "fae.safetensors")[0], request)
    export_file(tmp_path / "fae.safetensors", tmp_path / "again.pt", "none")
    again = method.transfer(action_of(load_release(tmp_path / "again.pt", TINY)), request)
    other = method.transfer(action_of(checked(dense(tokens, seed=9), TINY)), request)
    assert (first.frames == again.frames).all() and (first.frames != other.frames).any()


def test_own_fit_becomes_a_file_of_the_release(backbone: Backbone, reference: Video, tmp_path: Path):
    quick = FlexiActConfig(FitConfig(embedding_tokens=3, fit_steps=1, crops=1), TransferConfig(refadapter_weight=None))
    action = FlexiAct(backbone, quick).fit(reference, "a dog", seed=0)
    save_action(action, tmp_path / "fit.safetensors", {"reference_digest": frames_digest(reference)})
    (apart,) = re.findall(r"tokens per block 3, (\S+) of their size apart", show(tmp_path / "fit.safetensors"))
    assert float(apart) == pytest.approx(spread(action[ACTION_KEY]), rel=0.1) and float(apart) < 1e-4
    export_file(tmp_path / "fit.safetensors", tmp_path / "fit.pt", "none")
    back = action_of(load_release(tmp_path / "fit.pt", Sizes.of(backbone.transformer)))
    assert torch.equal(back[ACTION_KEY], action[ACTION_KEY]) and action[ACTION_KEY].any()


# --------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_layers": 11, "attention_head_dim": 8, "num_attention_heads": 3},
        {"use_rotary_positional_embeddings": False},
        {"patch_size_t": 2, "ofs_embed_dim": 8},
    ],
    ids=["rotary", "deep", "sinusoidal", "1.5"],
)
def test_round_trips_keep_every_bit_for_any_model(config: dict, dtype: torch.dtype, tmp_path: Path):
    transformer = tiny_transformer(**config)
    sizes = Sizes.of(transformer)
    for kind, state in {"lora": refadapter_state(sizes, 3, dtype), "fae": embedding_state(sizes, 7, dtype)}.items():
        state = dense(state)
        next(iter(state.values())).view(-1)[:2] = torch.tensor([-0.0, torch.finfo(dtype).smallest_normal / 4])
        source = written(OrderedDict(reversed(state.items())), tmp_path / f"{kind}.bin")  # order is the export's own
        out = tmp_path / (kind if kind == "lora" else "fae.safetensors")
        import_file(source, out, "none")
        export_file(out, tmp_path / f"{kind}.pt", "none")
        assert_same(tmp_path / f"{kind}.pt", state)
        export_file(out, tmp_path / f"{kind}-again.pt", "none")
        assert (tmp_path / f"{kind}.pt").read_bytes() == (tmp_path / f"{kind}-again.pt").read_bytes()
    adapter = RefAdapter.load(tmp_path / "lora", transformer)
    adapter.save(tmp_path / "saved")
    assert (tmp_path / "saved" / CONFIG_FILE).read_bytes() == (tmp_path / "lora" / CONFIG_FILE).read_bytes()


def test_views_and_parameters_take_nothing_else_with_them(tmp_path: Path):
    state = dense(refadapter_state(TINY, 2))
    flat = torch.cat([tensor.flatten() for tensor in state.values()] + [torch.zeros(10**6)])
    views, start = OrderedDict(), 0
    for name, tensor in state.items():
        views[name] = torch.nn.Parameter(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
    import_file(written(views, tmp_path / "flat.pt"), tmp_path / "ours", "none")
    export_file(tmp_path / "ours", tmp_path / "again.pt", "none")
    assert_same(tmp_path / "again.pt", state)
    save_release(load_release(tmp_path / "flat.pt"), tmp_path / "direct.pt")
    assert max((tmp_path / name).stat().st_size for name in ("again.pt", "direct.pt")) < 200_000


def test_headers_say_where_a_file_is_from(tmp_path: Path):
    reference = Video(random_frames(1), 8.0)
    write_lossless(tmp_path / "reference.mkv", reference)
    sizes = Sizes.of(load_backbone("puppets").transformer)
    source = written(dense(embedding_state(sizes, 5, torch.float16)), tmp_path / "jump.pt")
    import_file(source, tmp_path / "jump.safetensors", "puppets", reference=tmp_path / "reference.mkv")
    _, about = load_action(tmp_path / "jump.safetensors")
    assert about["reference_digest"] == frames_digest(reference)
    assert about["backbone"] == "puppets" and about["backbone_revision"] == load_backbone("puppets").revision
    assert (about["source"], about["dtype"]) == ("jump.pt", "float16")
    assert about["published_settings"]["learning_rate"] == 3e-3
    assert about["published_settings"]["embedding_tokens"] == 5
    import_file(written(dense(refadapter_state(sizes, 4)), tmp_path / "lora.pt"), tmp_path / "lora", "puppets")
    _, alpha, about = load_refadapter(tmp_path / "lora")
    assert alpha == about["published_settings"]["alpha"] == 32 and about["published_settings"]["rank"] == 4
    assert about["backbone_revision"] == load_backbone("puppets").revision
