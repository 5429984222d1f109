"""What is refused among the release's files, in one line, and the command."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from flexiact.backbone.backbone import load_backbone
from flexiact.backbone.specs import BACKBONES
from flexiact.checkpoints.authors import Sizes, checked, load_release
from flexiact.checkpoints.convert import import_file, main, show
from flexiact.checkpoints.ours import action_of, save_action
from flexiact.embedding import ACTION_KEY
from flexiact.refadapter import CONFIG_FILE, RefAdapter
from tests.support.release_files import TINY, dense, embedding_state, refadapter_state, written


def changed(kind: str, change: str) -> OrderedDict:
    state = dense(refadapter_state(TINY, 4) if kind == "refadapter" else embedding_state(TINY, 4))
    name = list(state)[0 if change == "missing" else -1]
    last = state.pop(name)
    if change == "unknown":
        state[name] = last
        state["transformer_blocks.0.attn1.processor.lora_o.up.weight"] = last
    elif change == "both":
        state[name] = last
        state |= embedding_state(TINY, 4) if kind == "refadapter" else refadapter_state(TINY, 4)
    elif change == "number":
        state[name], state[7] = last, last
    elif change != "missing":
        state[name] = {
            "transposed": last.transpose(-1, -2).contiguous(),
            "flat": last.flatten(),
            "half": last.half(),
            "integers": last.long(),
            "text": "x",
            "nan": last * torch.nan,
            "infinite": last * torch.inf,
        }[change]
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "missing transformer_blocks.0.attn1.processor"),
        ("unknown", "unknown transformer_blocks.0.attn1.processor.lora_o.up.weight"),
        ("both", "unknown transformer_blocks.0"),
        ("number", "unknown 7"),
        ("transposed", "expected [{shape}"),
        ("flat", "expected [{shape}"),
        ("half", "got [{shape} torch.float16"),
        ("integers", "torch.int64"),
        ("text", "got str"),
        ("nan", "not finite"),
        ("infinite", "not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["refadapter", "embedding"])
def test_every_name_and_number_is_accounted_for(kind: str, change: str, says: str, tmp_path: Path):
    state = changed(kind, change)
    path = written(state, tmp_path / "x.pt")
    for sizes in (TINY, None):  # the backbone's, or what the file itself says
        with pytest.raises(ValueError) as caught:
            load_release(path, sizes)
        message = str(caught.value)
        shape = "32, 4]" if kind == "refadapter" else "1, 4, 32]"
        assert says.format(shape=shape) in message and "\n" not in message
        assert message.startswith("embedding: " if kind == "embedding" or change == "both" else "refadapter: ")


@pytest.mark.parametrize("kind", ["refadapter", "embedding"])
@pytest.mark.parametrize("sizes", [Sizes(3, 32), Sizes(1, 32), Sizes(2, 48)], ids=str)
def test_file_of_another_model_is_refused(kind: str, sizes: Sizes):
    state = refadapter_state(TINY, 4) if kind == "refadapter" else embedding_state(TINY, 4)
    with pytest.raises(ValueError, match=f"^{kind}: .*(for {sizes.blocks} blocks|expected .*{sizes.width})"):
        checked(state, sizes)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty, cut short by a failed copy; fetch it again"),
        (b"PK\3\4", "cut short, damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 264\n", "git lfs pull"),
        (b"<html>not found</html>", "is a web page"),
        (Evil(), "holds more than tensors"),
        ({"x": Evil()}, "holds more than tensors"),
        (
            {"state_dict": {}, "hparams": Namespace(lr=1)},
            "than tensors, such as argparse.Namespace; save its tensors alone",
        ),
        (torch.zeros(3), "expected tensors by name"),
        ({"state_dict": {}}, "holds no names of the release, but state_dict"),
        ({}, "but nothing"),
        ({f"blocks.{i}": torch.zeros(1) for i in range(9)}, "and 6 more"),
    ],
)
def test_other_files_are_named_and_run_nothing(
    content: object, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="^checkpoint: ") as caught:
        load_release(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


@pytest.fixture(scope="module")
def small_file() -> bytes:
    stream = io.BytesIO()
    torch.save(dense(embedding_state(TINY, 3)), stream)
    return stream.getvalue()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_half_a_file_is_refused(share: float, small_file: bytes, tmp_path: Path):
    path = tmp_path / "half.pt"
    path.write_bytes(small_file[: int(share * len(small_file))])
    with pytest.raises(ValueError, match=r"^checkpoint: .*(cut short|cannot be read)"):
        load_release(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**9), value=st.integers(1, 255))
def test_damaged_byte_is_refused_or_harmless(place: int, value: int, small_file: bytes, tmp_path: Path):
    damaged = bytearray(small_file)
    damaged[place % len(damaged)] ^= value
    path = tmp_path / "damaged.pt"
    path.write_bytes(damaged)
    with contextlib.suppress(ValueError):
        load_release(path, TINY)


def test_folders(tmp_path: Path):
    lora, tokens = dense(refadapter_state(TINY, 4)), dense(embedding_state(TINY, 4))
    with pytest.raises(ValueError, match=r"holds no file of the release with a name in \.bin"):
        load_release(tmp_path)
    for step in (500, 1500, 1000):
        written(tokens if step == 1500 else lora, tmp_path / f"checkpoint-{step}" / "pytorch_model.pt")
    (tmp_path / "train.py").write_text("")
    assert load_release(tmp_path).kind == "embedding"  # the last step
    folder = tmp_path / "checkpoint-1500"
    written({"state": {0: {"exp_avg": torch.zeros(3)}}}, folder / "optimizer.bin")
    (folder / "scheduler.bin").write_bytes(b"x")
    (folder / "random_states_0.pkl").write_bytes(b"x")
    assert load_release(folder, TINY).source == "pytorch_model.pt"
    written(lora, folder / "adapter.pt")
    with pytest.raises(ValueError, match=r"several, name one: adapter\.pt, pytorch_model\.pt"):
        load_release(folder)
    (folder / "adapter.pt").unlink()
    (folder / "pytorch_model.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no file of the release \(.*optimizer.bin.*scheduler.bin"):
        load_release(folder)


def test_old_pickles_are_read(tmp_path: Path):
    state = dense(embedding_state(TINY, 4))
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "old.bin")
    assert torch.equal(action_of(load_release(tmp_path))[ACTION_KEY], torch.cat(list(state.values())))


# ------------------------------------------------------------------------------------------------------- command


def test_command_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lora = BACKBONES["puppets"].refadapter
    there, back, again = (str(tmp_path / name) for name in ("lora.pt", "lora", "again.pt"))
    common = ["--backbone", "puppets", "--alpha", "16"]
    assert main(["export", str(lora), there, *common]) == 0
    assert main(["import", there, back, *common]) == 0
    assert main(["export", back, again, *common]) == 0
    assert Path(there).read_bytes() == Path(again).read_bytes()
    backbone = replace(load_backbone("puppets"), refadapter=Path(back))
    ours, shipped = (RefAdapter.load(folder, backbone.transformer) for folder in (Path(back), lora))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), shipped.parameters(), strict=True))
    capsys.readouterr()
    assert main(["show", back]) == 0
    shown = capsys.readouterr().out
    assert "rank 16" in shown and "alpha: 16" in shown and "backbone: puppets" in shown
    assert show(Path(there)).startswith("refadapter lora.pt: 64 tensors, 8 blocks, width 128, rank 16")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "missing.pt"], "missing.pt"),
        (["import", "fae.pt", "out.safetensors", "--backbone", "puppet"], "backbone: unknown name 'puppet'"),
        (["import", "fae.pt", "out.safetensors", "--backbone", "puppets"], "for 8 blocks; missing"),
        (["import", "fae.pt", "out.pt", "--backbone", "none"], "out: expected a name that ends in .safetensors"),
        (["import", "fae.pt", "there.safetensors", "--backbone", "none"], "exists; choose another"),
        (["import", "fae.pt", "fae.pt/x.safetensors", "--backbone", "none"], "cannot be written"),
        (["import", "lora.pt", "out", "--backbone", "none", "--alpha", "nan"], "alpha: "),
        (["import", "lora.pt", "out", "--backbone", "none", "--reference", "x.mp4"], "reference: "),
        (["import", "lora", "out", "--backbone", "none"], "in our form already"),
        (["import", "there.safetensors", "out", "--backbone", "none"], "in our form already"),
        (["export", "lora.pt", "out", "--backbone", "none"], "neither a RefAdapter folder"),
        (["export", "lora", "out", "--backbone", "none", "--alpha", "16"], "another strength"),
        (["export", "lora", "out", "--backbone", "puppets"], "for 8 blocks; missing"),
        (["export", "lora", "fae.pt", "--backbone", "none"], "exists; choose another"),
        (["export", "other.safetensors", "out", "--backbone", "none"], "action: expected one entry"),
        (["export", "false.safetensors", "out", "--backbone", "none"], "dtype: float16 does not hold"),
        (["export", "rank", "out", "--backbone", "none"], "says rank 5"),
        (["export", "broken", "out", "--backbone", "none"], "cannot be read"),
    ],
)
def test_command_answers_in_one_line(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    tokens = dense(embedding_state(TINY, 4))
    written(tokens, Path("fae.pt"))
    written(dense(refadapter_state(TINY, 4)), Path("lora.pt"))
    for name in ("lora", "rank", "broken"):
        import_file(Path("lora.pt"), Path(name), "none")
    config = json.loads(Path("rank", CONFIG_FILE).read_text()) | {"r": 5}
    Path("rank", CONFIG_FILE).write_text(json.dumps(config))
    Path("broken", CONFIG_FILE).write_text("[]")
    save_action(action_of(checked(tokens)), Path("there.safetensors"), {})
    save_action(action_of(checked(tokens)), Path("false.safetensors"), {"dtype": "float16"})
    save_action({"other": torch.zeros(2)}, Path("other.safetensors"), {})
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["--help"], ["import", "--help"], ["export"]])
def test_help_and_usage_load_no_networks(arguments: list[str]):
    code = (
        "import sys\nfrom flexiact.checkpoints.convert import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: print('torch' in sys.modules, stop.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    assert done.stdout.splitlines()[-1] == ("False 2" if arguments == ["export"] else "False 0")
    assert done.stderr.count("\n") == (1 if arguments == ["export"] else 0)


def prefixed(prefix: str):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


WRAPPERS = {
    "DDP": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled DDP": prefixed("module._orig_mod."),
    "in a pipeline": prefixed("transformer."),
    "peft": prefixed("base_model.model."),
    "checkpointing": lambda s: {n.replace(".attn1.", "._checkpoint_wrapped_module.attn1."): t for n, t in s.items()},
    "state_dict": lambda s: {"state_dict": dict(s)},
    "model beside others": lambda s: {"epoch": 3, "model": dict(s), "optimizer": {"state": {}, "param_groups": []}},
    "Lightning": lambda s: {"state_dict": prefixed("model.")(s), "global_step": 7},
    "deep": lambda s: {"checkpoint": {"module": prefixed("module.")(s)}},
}


@pytest.mark.parametrize("kind", ["refadapter", "embedding"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_taken_off_and_told(wrapper: str, kind: str, tmp_path: Path, capsys) -> None:
    state = dense(refadapter_state(TINY, 4) if kind == "refadapter" else embedding_state(TINY, 4))
    plain = load_release(written(state, tmp_path / "plain.pt"), TINY)
    assert capsys.readouterr().err == ""
    release = load_release(written(WRAPPERS[wrapper](state), tmp_path / "wrapped.pt"), TINY)
    assert list(release.tensors) == list(plain.tensors)
    assert all(torch.equal(release.tensors[name], plain.tensors[name]) for name in plain.tensors)
    assert "note: wrapped.pt is wrapped: read as " in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_by_the_release_s_names_are_read(prefix: str, tmp_path: Path) -> None:
    state = dense(refadapter_state(TINY, 4))
    save_file(prefixed(prefix)(state), tmp_path / "a.safetensors")
    for place in (tmp_path / "a.safetensors", tmp_path):
        assert torch.equal(next(iter(load_release(place, TINY).tensors.values())), next(iter(state.values())))
    assert "rank 4" in show(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (lambda s: {"ema": dict(s), "model": dict(s)}, "holds several, ema, model; save one"),
        (lambda s: {**prefixed("a.")(s), **prefixed("b.")(s)}, "with other words before it"),
        (lambda s: {("a." if "_q" in n else "b.") + n: t for n, t in s.items()}, "begin differently: 'a.', 'b.'"),
    ],
)
def test_wrappers_in_doubt_are_refused(wrap, says: str, tmp_path: Path) -> None:
    file = written(wrap(dense(refadapter_state(TINY, 4))), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"checkpoint: a.pt .*{says}") as refused:
        load_release(file, TINY)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["a.bin", "A.SAFETENSORS", "a.pt"])
def test_the_content_says_what_a_file_is(name: str, tmp_path: Path) -> None:
    state = dense(refadapter_state(TINY, 4))
    save_file(state, tmp_path / name)
    assert torch.equal(next(iter(load_release(tmp_path / name, TINY).tensors.values())), next(iter(state.values())))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lora_unet_transformer_blocks_0_attn1_to_q.lora_down.weight", "the names of kohya's trainers"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", "the names of peft or diffusers; put it into"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora.down.weight", "the names of peft or diffusers; put it into"),
    ],
)
def test_loras_by_other_names_are_not_taken_for_ours(name: str, says: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(4, 32)}, tmp_path / "a.safetensors")
    file = tmp_path / "a.safetensors"
    for read in (lambda: load_release(file, TINY), lambda: show(file), lambda: show(tmp_path)):
        with pytest.raises(ValueError, match=f"checkpoint: .*a.safetensors holds a LoRA by {says}"):
            read()


def test_folders_of_other_forms_say_what_to_do(tmp_path: Path) -> None:
    state, names = dense(refadapter_state(TINY, 4)), list(refadapter_state(TINY, 4))
    parts, sharded, steps = tmp_path / "parts", tmp_path / "sharded", tmp_path / "steps"
    for folder in (parts, sharded, steps / "global_step5"):
        folder.mkdir(parents=True)
    for part, some in ((1, names[:3]), (2, names[3:])):
        save_file({name: state[name] for name in some}, parts / f"model-0000{part}-of-00002.safetensors")
    (sharded / "__0_0.distcp").touch()
    torch.save({"module": state}, steps / "global_step5" / "mp_rank_00_model_states.pt")
    for folder, says in (
        (parts, "holds one in 2 parts; save it as one file"),
        (sharded, "is a distributed checkpoint; make one file of it"),
        (steps, "name one of its folders: global_step5"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint: {folder} .*{says}"):
            load_release(folder, TINY)
    assert load_release(steps / "global_step5", TINY).kind == "refadapter"
