"""Make one video from one image and one reference video: the work behind `python -m flexiact`."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from flexiact.backbone.backbone import Backbone, check_folders, load_backbone
from flexiact.backbone.codec import note_long_text
from flexiact.backbone.loading import NO_SAVINGS, Savings, resolve_device
from flexiact.backbone.specs import find_spec
from flexiact.checkpoints.ours import load_action
from flexiact.embedding import ACTION_KEY
from flexiact.fits import FitFolder, fit_description
from flexiact.media.digests import canonical_json, json_digest
from flexiact.media.image import fit_image, note_cut, read_image
from flexiact.media.video import check_clip, read_clip, write_lossless, write_preview
from flexiact.memory.check import check_memory
from flexiact.method import PRESETS, FlexiAct, preset
from flexiact.ranges import check_seed
from flexiact.task import Action, Request, Video
from flexiact.terminal.notes import FASTER, note
from flexiact.terminal.progress import in_words, steps_shown

PREVIEW_SIDE_PX = 256  # smaller videos are enlarged by a whole factor to about this size
LONG_REFERENCE = 3.0
"""A reference longer than this many of the backbone's own clips has frames too far apart to show one action."""


@dataclass(frozen=True)
class Setup:
    """Settings of a method that makes videos.

    Attributes:
        backbone: Name or folder, see `flexiact.backbone.specs.find_spec`.
        refadapter: Path to a folder in peft's format; None: the backbone's own; "none": no RefAdapter.
        method_preset: Name in `flexiact.method.PRESETS`; None: the backbone's preset.
        device: Name of the device, see `flexiact.backbone.loading.resolve_device`.
        steps: Number of sampler steps; None: the backbone's own.
        fit_steps: Number of optimiser steps; None: the preset's.
        cache: Path to the folder of cached fits.
        savings: Options that need less memory.
        fits: True if actions will be learned; transfers alone need less memory.
    """

    backbone: str
    refadapter: str | None
    method_preset: str | None
    device: str
    steps: int | None
    fit_steps: int | None
    cache: Path
    savings: Savings = NO_SAVINGS
    fits: bool = True


@dataclass(frozen=True)
class Shown:
    """A video of an action to be learned, and its caption.

    Attributes:
        start_s: Second of the video at which a clip of the backbone's length begins, which then keeps its own speed;
            None: the clip shows the whole video, a longer one faster.
    """

    reference: Path
    caption: str
    start_s: float | None = None


@dataclass(frozen=True)
class Order:
    """One video to be made.

    Attributes:
        image: Path to the target image.
        action: Action to be learned, or path to a learned one (see `flexiact.checkpoints.ours.load_action`).
        prompt: Prompt of the video.
        seed: Seed of fit and transfer.
        out: Path to the video: .mp4 for players (H.264), .mkv for the same frames bit by bit (FFV1).
    """

    image: Path
    action: Shown | Path
    prompt: str
    seed: int
    out: Path


@dataclass(frozen=True, eq=False)
class Made:
    """A video and its costs.

    Attributes:
        video: Video with the backbone's size, length and frame rate.
        action_file: Path to the learned action.
        fit_s: Duration of the fit in seconds; None if the action came from the cache or a file.
        transfer_s: Duration of the transfer in seconds.
    """

    video: Video
    action_file: Path
    fit_s: float | None
    transfer_s: float

    def costs(self) -> str:
        """The costs in words."""
        fit = f"fit {in_words(self.fit_s)}" if self.fit_s is not None else "fit found"
        return f"{fit} ({self.action_file}), transfer {in_words(self.transfer_s)}"


def load_method(setup: Setup) -> FlexiAct:
    """Load the method and its backbone, with the changes in the setup.

    Raises:
        ValueError: If something is unknown, missing or damaged; the message names the field.
    """
    if setup.method_preset is not None and setup.method_preset not in PRESETS:
        raise ValueError(f"method-preset: unknown name {setup.method_preset!r} (known: {', '.join(PRESETS)})")
    for name, value in (("steps", setup.steps), ("fit-steps", setup.fit_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
    if setup.fits:
        FitFolder(setup.cache).check()
    resolve_device(setup.device)
    backbone = _load_backbone(setup)
    config = PRESETS[setup.method_preset] if setup.method_preset else preset(backbone)
    if setup.refadapter == "none":
        config = config.changed(refadapter_weight=None)
    if setup.fit_steps is not None:
        config = config.changed(fit_steps=setup.fit_steps)
    if setup.steps is not None:
        config = config.changed(num_inference_steps=setup.steps)
    return FlexiAct(backbone, config)


def make_video(method: FlexiAct, fits: FitFolder, order: Order) -> Made:
    """Make a video from files that `check_order` accepted, and write it.

    Raises:
        ValueError: If a field or file is wrong; the message names it. No video is written then, but a fit may be.
    """
    backbone = method.backbone
    image = read_image(order.image)
    note_cut(order.image, image, backbone.height, backbone.width)
    request = Request(fit_image(image, backbone.height, backbone.width), order.prompt, order.seed)
    note_long_text(backbone, order.prompt)
    if isinstance(order.action, Shown):
        note_long_text(backbone, order.action.caption)
        reference = _read_reference(order.action, backbone)
        made = perform(method, fits, reference, order.action.caption, request)
    else:
        made = perform_again(method, order.action, request)
    write_video(order.out, made.video)
    return made


def perform(method: FlexiAct, fits: FitFolder, reference: Video, caption: str, request: Request) -> Made:
    """Fit with the request's seed, unless the fit is cached, and transfer; both show the time left.

    Raises:
        ValueError: As for `FlexiAct.fit` and `FlexiAct.transfer`, or if the fit cannot be stored.
    """
    fits.check()
    description = fit_description(method, reference, caption, request.seed)
    name = json_digest(description)
    kept, fit_s = fits.load(name), None
    if kept is not None:
        action, _ = kept
    else:
        start = time.perf_counter()
        with fits.resumable(name) as checkpoints:
            action = _fit(method, reference, caption, request.seed)
        fit_s = checkpoints.earlier_s + time.perf_counter() - start
        fits.save(name, action, {"fit": canonical_json(description)})
        checkpoints.discard()
    video, transfer_s = _transfer(method, action, request)
    return Made(video, fits.file(name), fit_s, transfer_s)


def perform_again(method: FlexiAct, file: Path, request: Request) -> Made:
    """Transfer an action from a file, and print a note if its header names other weights than the backbone's.

    Raises:
        ValueError: If the file cannot be read or belongs to a model of another size.
    """
    action, about = load_action(file)
    theirs, ours = (str(r).partition("+")[0] for r in (about.get("backbone_revision") or "", method.backbone.revision))
    if theirs not in {"", ours}:  # regardless of quantisation
        note(file, f"was made for revision {theirs:.12} of the backbone, this is {ours:.12}")
    video, transfer_s = _transfer(method, action, request)
    return Made(video, file, None, transfer_s)


def check_order(order: Order) -> None:
    """Check, before a large model is loaded, that all files can be read or written.

    Raises:
        ValueError: If one cannot; the message names the field or file.
    """
    check_seed(order.seed)
    read_image(order.image)
    if isinstance(order.action, Shown):
        kind, source = "reference", order.action.reference
        timing = check_clip(source)
        if order.action.start_s is not None:
            timing.check_window(order.action.start_s, 0.0)  # the length of a clip is not known yet
    else:
        kind, source = "action", order.action
        _check_action(source)
    if order.out.suffix.lower() not in {".mp4", ".mkv"}:
        raise ValueError(f"out: expected a name that ends in .mp4 or .mkv (lossless), got {order.out}")
    if order.out.is_dir():
        raise ValueError(f"out: {order.out} is a folder")
    parent = order.out.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"out: there is no folder {order.out.parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"out: {order.out.parent} cannot be written to")
    for name, path in (("image", order.image), (kind, source)):
        if order.out.exists() and path.exists() and order.out.samefile(path):
            raise ValueError(f"out: {order.out} is the {name}, which would be lost")


def write_video(path: Path, video: Video) -> None:
    """Write lossless Matroska to a path that ends in .mkv, otherwise MP4 for players with small videos enlarged.

    Raises:
        ValueError: If the file cannot be written.
    """
    if path.suffix.lower() == ".mkv":
        write_lossless(path, video)
    else:
        write_preview(path, video, max(1, PREVIEW_SIDE_PX // min(video.frames.shape[1:3])))


def _check_action(file: Path) -> None:
    if file.suffix != ".safetensors":
        raise ValueError(
            f"action: expected a .safetensors file, got {file}; python -m flexiact.checkpoints import makes one of a "
            "released file"
        )
    action, _ = load_action(file)
    if set(action) != {ACTION_KEY}:
        raise ValueError(f"action: {file} holds {', '.join(sorted(action)[:3]) or 'nothing'}, expected {ACTION_KEY}")


def _read_reference(action: Shown, backbone: Backbone) -> Video:
    """Read a clip at the backbone's size and length, and print a note if the video is much longer or shorter."""
    path, length_s = action.reference, (backbone.num_frames - 1) / backbone.fps
    window = None if action.start_s is None else (action.start_s, length_s)
    reference = read_clip(path, backbone.num_frames, backbone.height, backbone.width, window)
    if action.start_s is not None:
        note(path, f"is read from {action.start_s:.2f} s to {action.start_s + length_s:.2f} s, at its own speed")
    apart_s = 1 / reference.fps
    faster = apart_s * backbone.fps
    if faster > LONG_REFERENCE:
        read = f"{backbone.num_frames} of its frames, {apart_s:.2g} s apart, are read"
        note(path, f"is long: {read}; cut it to the action, or give --start")
    elif faster > FASTER:
        fast = f"which shows its action {faster:.2g} times as fast"
        note(path, f"is longer than the clip, {fast}; --start takes a part at its own speed")
    different = 1 + int((reference.frames[1:] != reference.frames[:-1]).any(axis=(1, 2, 3)).sum())
    if 2 * different < backbone.num_frames:
        few = f"{different} different frames stand for {backbone.num_frames}"
        note(path, f"is short: {few}; give a video of the whole action")
    return reference


def _fit(method: FlexiAct, reference: Video, caption: str, seed: int) -> Action:
    if sys.stderr.isatty():  # the fit shows its own bar on a terminal
        return method.fit(reference, caption, seed=seed)
    with steps_shown(method.backbone.transformer, method.config.fit.fit_steps, "fit"):
        return method.fit(reference, caption, seed=seed)


def _transfer(method: FlexiAct, action: Action, request: Request) -> tuple[Video, float]:
    """The video, and the duration of the transfer in seconds."""
    start = time.perf_counter()
    steps, _ = method.config.transfer.resolved(method.backbone)
    with steps_shown(method.backbone.transformer, steps, "transfer"):
        video = method.transfer(action, request)
    return video, time.perf_counter() - start


def _load_backbone(setup: Setup) -> Backbone:
    _, spec = find_spec(setup.backbone)
    if setup.refadapter is None and spec.refadapter is None:
        raise ValueError(
            f"refadapter: backbone {setup.backbone} comes without a RefAdapter; "
            "give --refadapter FOLDER (in peft's format), or --refadapter none to do without"
        )
    refadapter = None if setup.refadapter in {None, "none"} else Path(str(setup.refadapter))
    check_folders(refadapter)  # looking up the memory may take long
    check_memory(setup.backbone, setup.device, setup.savings, fits=setup.fits)
    return load_backbone(setup.backbone, setup.device, refadapter, savings=setup.savings)
