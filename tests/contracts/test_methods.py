"""What every method of METHODS promises, on the smallest real backbone.

How a method behaves belongs to its class, and is tested on the one entry of each class that uses most of it. An entry
adds its configuration and its golden values.
"""

import importlib
import json
import pkgutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import baselines
from benchmark.planning.methods import METHODS
from flexiact.backbone.backbone import Backbone
from flexiact.task import Action, ActionTransfer, Request, Video
from tests.support.backbones import random_frames
from tests.support.goldens import METHODS_FOLDER, cells, stored_action
from tests.support.tiny_methods import (
    CAPTION,
    OTHER_TARGET,
    PROMPT,
    REFERENCES,
    TARGET,
    fitted,
    new_backbone,
    patch_tiny,
    trace,
    transferred,
)

# The entry of each class that uses most of it: RefAdapter where it can.
CLASSES = (
    "flexiact",
    "motion_director+refadapter",
    "motion_inversion+refadapter",
    "ditflow+refadapter",
    "smm+refadapter",
    "motion_clone+refadapter",
    "pose_guided",
    "pose_guided-true",
    "i2v",
)
# Their `fit` is a look at the reference: neither the seed nor the backbone's weights enter.
FITS_BY_LOOKING = ("pose_guided", "pose_guided-true")

# Classes that take no configuration: this one is `PoseGuided` with another estimator.
PLAIN = {"pose_guided-true"}
CONFIGURED = [name for name in CLASSES if name not in PLAIN]

NOT_METHODS = {"guidance", "stills"}

every_entry = pytest.mark.parametrize("name", METHODS)
every_class = pytest.mark.parametrize("name", CLASSES)


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_tiny(monkeypatch)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """One backbone for the whole suite: methods leave it as it was, and a test says so."""
    return new_backbone(tmp_path_factory.mktemp("shared"))


# ---------------------------------------------------------------------------------------------------------- the entries


@every_entry
def test_an_entry_builds_in_silence_and_says_what_it_is(name: str, shared: Backbone, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("construction opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before, initialised = trace(shared), torch.cuda.is_initialized()
    method, again = (METHODS[name].build(shared) for _ in range(2))
    assert trace(shared) == before and torch.cuda.is_initialized() == initialised
    assert isinstance(method, ActionTransfer)
    assert isinstance(method.version, int) and method.version >= 1
    assert isinstance(method.uses_reference, bool)
    assert METHODS[name].summary and METHODS[name].extra_supervision
    for config, same in (
        (method.fit_config(), again.fit_config()),
        (method.transfer_config(), again.transfer_config()),
    ):
        assert json.loads(json.dumps(config, allow_nan=False)) == config == same


@every_entry
def test_an_entry_is_refused_without_the_weights_it_needs_and_without_no_others(name: str, shared: Backbone):
    for part in ("refadapter", "control"):
        without = replace(shared, **{part: None})
        if part in METHODS[name].needs:
            with pytest.raises(ValueError, match=part):
                METHODS[name].build(without)
        else:
            METHODS[name].build(without)


@pytest.mark.golden
@every_entry
def test_transfer_gives_the_stored_numbers(name: str, shared: Backbone):
    """A change here means other videos than before: raise the method's `version`, then store anew."""
    method = METHODS[name].build(shared)
    stored = json.loads((METHODS_FOLDER / f"{name}.json").read_text())
    assert stored["version"] == method.version
    np.testing.assert_allclose(cells(transferred(method, stored_action(method))), stored["cells"], atol=0.5)


def changes(settings: Any) -> Iterator[tuple[str, Any]]:
    """A dataclass with one field changed, for every field, and for every field of those that are dataclasses."""
    kinds = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            for name, inner in changes(value):
                yield f"{field.name}.{name}", replace(settings, **{field.name: inner})
            continue
        if isinstance(value, bool):
            others = [not value]
        elif isinstance(value, str):
            others = [choice for choice in get_args(kinds[field.name]) if choice != value] or [f"another {value}"]
        else:
            others = [1] if value is None else [value + 1, value / 2]
        for other in others:
            with suppress(ValueError):  # out of the field's range
                yield field.name, replace(settings, **{field.name: other})
                break
        else:
            raise AssertionError(f"{field.name}: say here what else it can be")


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_setting_is_part_of_the_key_of_its_verb(name: str, shared: Backbone):
    """A setting that is in no key would bring stale fits and videos back when it is changed."""
    method = METHODS[name].build(shared)
    for half in ("fit", "transfer"):
        for field, other in changes(getattr(method.config, half)):
            changed = type(method)(shared, replace(method.config, **{half: other}))
            before, after = (getattr(each, f"{half}_config")() for each in (method, changed))
            assert before != after, f"{half}.{field} is in no key"


def test_fit_reads_no_setting_of_transfer_that_its_key_lacks(shared: Backbone):
    classes = {type(method): method for method in (METHODS[name].build(shared) for name in reversed(CONFIGURED))}
    for kind, method in classes.items():
        action = fitted(method)
        for field, other in changes(method.config.transfer):
            changed = kind(shared, replace(method.config, transfer=other))
            if changed.fit_config() == method.fit_config():
                again = changed.fit(REFERENCES[0], CAPTION, seed=0)
                assert all(torch.equal(action[key], again[key]) for key in action), f"{kind.__name__}: {field}"


def test_short_fits_change_the_steps_of_fits_alone(shared: Backbone):
    for name in METHODS:
        whole, short = (METHODS[name].build(backbone) for backbone in (shared, replace(shared, fit_share=0.01)))
        before, after = whole.fit_config(), short.fit_config()
        steps = {"fit_steps", "spatial_steps", "temporal_steps"} & set(before)
        assert after == before | {key: max(1, round(before[key] / 100)) for key in steps}, name
        # A method that trains while it transfers names the fit's settings there, too.
        other = {"fit": after} if isinstance(whole.transfer_config().get("fit"), dict) else {}
        assert short.transfer_config() == whole.transfer_config() | other, name


def test_no_two_methods_have_the_same_configurations(shared: Backbone):
    configs = {
        name: (method.method_id, json.dumps([method.fit_config(), method.transfer_config()], sort_keys=True))
        for name, method in ((name, entry.build(shared)) for name, entry in METHODS.items())
    }
    assert len(set(configs.values())) == len(configs)


def test_every_module_has_a_line_in_the_table(shared: Backbone):
    listed = {type(entry.build(shared)) for entry in METHODS.values()}
    for info in pkgutil.iter_modules(baselines.__path__):
        module = importlib.import_module(f"baselines.{info.name}")
        own = {kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__}
        methods = {kind for kind in own if hasattr(kind, "method_id")}
        assert methods <= listed, f"baselines/{info.name}.py: a method is missing from METHODS"
        if info.name not in NOT_METHODS:
            assert methods, f"baselines/{info.name}.py has no method; if it is none, name it in NOT_METHODS"


def test_every_class_has_an_id_and_one_entry_that_stands_for_it(shared: Backbone):
    classes = {type(entry.build(shared)) for entry in METHODS.values()}
    assert len({kind.method_id for kind in classes}) == len(classes)
    standing = [type(METHODS[name].build(shared)) for name in CLASSES]
    assert set(standing) == classes and len(standing) == len(classes)


# ---------------------------------------------------------------------------------------------------------- the classes


@every_class
def test_fit_gives_finite_tensors_on_the_cpu(name: str, shared: Backbone):
    for key, tensor in fitted(METHODS[name].build(shared)).items():
        assert isinstance(key, str) and tensor.device.type == "cpu" and not tensor.requires_grad
        assert tensor.is_contiguous() and torch.isfinite(tensor).all()


@every_class
def test_fit_follows_its_seed(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    first = fitted(method)
    again = method.fit(REFERENCES[0], CAPTION, seed=0)
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    if first and name not in FITS_BY_LOOKING:
        other = fitted(method, seed=1)
        assert not all(torch.equal(first[key], other[key]) for key in first)


@every_class
def test_saved_and_loaded_action_gives_the_same_transfer(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    action = fitted(method)
    again = load(save(dict(action)))
    np.testing.assert_array_equal(transferred(method, action), transferred(METHODS[name].build(shared), again))


@every_class
def test_output_has_the_backbone_s_size_length_rate_and_type(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    video = method.transfer(fitted(method), Request(TARGET, PROMPT, 0))
    assert video.frames.shape == (shared.num_frames, shared.height, shared.width, 3)
    assert video.frames.dtype == np.uint8 and video.fps == shared.fps
    assert video.frames.std() > 1


@every_class
def test_same_seed_same_frames_other_seed_other_frames(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    action = fitted(method)
    first = transferred(method, action)
    np.testing.assert_array_equal(first, transferred(method, action))
    assert (first != transferred(method, action, seed=1)).any()


@every_class
def test_another_reference_changes_the_output_unless_declared(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    first, second = (transferred(method, fitted(method, reference)) for reference in (0, 1))
    assert (first != second).any() == method.uses_reference


@every_class
def test_target_and_prompt_change_the_output(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    action = fitted(method)
    first = transferred(method, action)
    for request in (Request(OTHER_TARGET, PROMPT, 0), Request(TARGET, "a dog", 0)):
        assert (method.transfer(action, request).frames != first).any()


@every_class
def test_no_trace_is_left(name: str, tmp_path: Path):
    backbone = new_backbone(tmp_path)
    method = METHODS[name].build(backbone)
    before = trace(backbone)
    action = method.fit(REFERENCES[0], CAPTION, seed=0)
    assert trace(backbone) == before
    kept = {key: tensor.clone() for key, tensor in action.items()}
    target = TARGET.copy()
    transferred(method, action)
    assert trace(backbone) == before
    assert all(torch.equal(kept[key], action[key]) for key in kept) and (target == TARGET).all()


@every_class
def test_no_trace_is_left_after_an_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backbone = new_backbone(tmp_path)
    method = METHODS[name].build(backbone)
    action = fitted(method)
    before = trace(backbone)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    last = backbone.transformer.transformer_blocks[-1].ff
    monkeypatch.setattr(type(last), "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        transferred(method, action)
    if action and name not in FITS_BY_LOOKING:
        with pytest.raises(RuntimeError, match="out of memory"):
            method.fit(REFERENCES[0], CAPTION, seed=0)
    monkeypatch.undo()
    assert trace(backbone) == before


def test_other_methods_in_between_change_nothing(shared: Backbone):
    """All once, one after the other, and all again: between the two videos of each were all the others."""
    methods = {name: METHODS[name].build(shared) for name in METHODS}
    first, second = ({name: transferred(method, fitted(method)) for name, method in methods.items()} for _ in range(2))
    assert [name for name in METHODS if (first[name] != second[name]).any()] == []


@every_class
def test_global_generators_are_not_read(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    action = fitted(method)
    frames = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            frames.append(transferred(METHODS[name].build(shared), action))
    np.testing.assert_array_equal(*frames)


@every_class
def test_target_of_another_size_is_named(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    for shape in ((24, 16), (32, 48), (8, 8)):
        with pytest.raises(ValueError, match="target"):
            method.transfer(fitted(method), Request(random_frames(0, 1, *shape)[0], PROMPT, 0))


@every_class
def test_reference_of_another_size_or_length_is_named(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    for shape in ((8, 16, 24), (17, 16, 24), (9, 24, 16)):
        video = Video(random_frames(0, *shape), 8.0)
        if method.uses_reference:
            with pytest.raises(ValueError, match="reference"):
                method.fit(video, CAPTION, seed=0)
        else:
            assert method.fit(video, CAPTION, seed=0) == {}


def damaged(action: Action) -> dict[str, Action]:
    """An action's first tensor spoiled in every way; of an empty one only what it should not have."""
    unknown = {**action, "unknown": torch.zeros(1)}
    if not action:
        return {"unknown": unknown}
    key, *_ = action
    tensor = action[key]
    first = torch.tensor([0])
    return {
        "unknown": unknown,
        "missing": {name: value for name, value in action.items() if name != key},
        "nan": {**action, key: tensor.flatten().index_fill(0, first, torch.nan).view_as(tensor)},
        "dtype": {**action, key: tensor.to(torch.int32)},
        "shape": {**action, key: tensor[..., :-1].contiguous()},
    }


@every_class
def test_bad_action_is_named(name: str, shared: Backbone):
    method = METHODS[name].build(shared)
    action = fitted(method)
    assert bool(action) == method.uses_reference  # who reads a reference learns something that can be damaged
    for damage, bad in damaged(action).items():
        with pytest.raises(ValueError, match="action"):
            transferred(method, bad)
            pytest.fail(f"{damage}: taken")


@every_class
def test_weights_that_are_not_finite_are_named(name: str, tmp_path: Path):
    backbone = new_backbone(tmp_path)
    method = METHODS[name].build(backbone)
    action = fitted(method)
    weight = backbone.transformer.proj_out.weight
    weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="backbone"):
        transferred(method, action)
    if action and name not in FITS_BY_LOOKING:
        with pytest.raises(ValueError, match="backbone|loss"):
            method.fit(REFERENCES[0], CAPTION, seed=0)
