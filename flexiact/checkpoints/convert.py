"""Convert checkpoint files of the authors' FlexiAct release to our form and back.

    python -m flexiact.checkpoints show FILE              describe a file or folder of either form
    python -m flexiact.checkpoints import FILE OUT        the release's form to ours
    python -m flexiact.checkpoints export FILE OUT        ours to the release's

FILE may be a folder that holds exactly one file of the release, or the output folder of its training, whose last
`checkpoint-N` is read. Wrappers of other programs (`module.` before names, an entry `state_dict`, safetensors) are
removed. `import` turns a RefAdapter into the folder OUT, which `--refadapter` of the other commands reads, and an
embedding into the action OUT, a .safetensors file. `flexiact.checkpoints.authors` and `.ours` describe the forms.
Pickles are opened as tensors only, never as code. Every name, shape and number is checked first. A round trip keeps
every bit.

Sizes must be those of --backbone (published ones are known, nothing is fetched). With `none` the file's own sizes are
used; missing blocks at its end are not noticed then. Exit codes: 0 done; 2 nothing was written, and one line on
standard error says why.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.terminal.cli import OneLineParser, command, one_line

if TYPE_CHECKING:  # not at run time, because importing torch takes seconds that --help does not need
    from flexiact.checkpoints.authors import Release, Sizes

BACKBONE = "cogvideox-5b-i2v"  # the authors published files for this backbone
ALPHA = 32  # alpha of the release's LoRA layers, which only its code states


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no network library."""
    usage = argparse.RawDescriptionHelpFormatter
    p = OneLineParser(prog="python -m flexiact.checkpoints", description=__doc__, formatter_class=usage)
    verbs = p.add_subparsers(dest="verb", required=True, metavar="show|import|export")
    helps = {"show": "describe a file", "import": "the release's form to ours", "export": "ours to the release's"}
    for verb, text in helps.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("file", type=Path, metavar="FILE", help="a file, or a folder that holds one")
        if verb == "show":
            continue
        sub.add_argument("out", type=Path, metavar="OUT", help="must not exist")
        sub.add_argument("--backbone", default=BACKBONE, metavar="NAME", help="or none (%(default)s)")
        sub.add_argument("--alpha", type=float, default=ALPHA, help="alpha of the release's LoRA layers (%(default)s)")
        if verb == "import":
            sub.add_argument("--reference", type=Path, metavar="VIDEO", help="video an embedding was fitted to")
    return p


def _convert(options: argparse.Namespace) -> None:
    if options.verb == "show":
        print(show(options.file))
    elif options.verb == "import":
        print(import_file(options.file, options.out, options.backbone, options.alpha, options.reference))
    else:
        print(export_file(options.file, options.out, options.backbone, options.alpha))


def show(path: Path) -> str:
    """Describe the content and the header of a file or folder of either form in a few lines.

    Raises:
        ValueError: If it has neither form, or is damaged.
    """
    from flexiact.checkpoints.authors import load_release

    if not _is_ours(path):
        return _summary(load_release(path))
    release, alpha, about = _load_ours(path, None)
    known = about if alpha is None else {"alpha": alpha} | about
    return "\n".join([_summary(release), *(f"  {name}: {value}" for name, value in known.items())])


def import_file(
    source: Path, out: Path, backbone: str = BACKBONE, alpha: float = ALPHA, reference: Path | None = None
) -> str:
    """Write a file of the release in our form; return a description of a few lines.

    Args:
        source: Path to a file or folder.
        out: Path to the folder or .safetensors file to make.
        backbone: Name of the backbone whose sizes the file must have; "none" for the file's own sizes.
        alpha: Alpha with which the release's LoRA layers were trained.
        reference: Path to the video that an embedding was fitted to, for its digest in the header.

    Raises:
        ValueError: If anything is wrong; the message says what, and nothing is written.
    """
    from flexiact.checkpoints.authors import load_release
    from flexiact.checkpoints.ours import action_of, save_action, save_refadapter
    from flexiact.media.video import frames_digest, read_video

    sizes, revision = _backbone(backbone)
    release = load_release(source, sizes)
    if reference is not None and release.kind == "refadapter":
        raise ValueError("reference: a RefAdapter is not fitted to one video")
    about: dict[str, Any] = {
        "source": release.source,
        "dtype": release.dtype,
        "backbone": None if backbone == "none" else backbone,
        "backbone_revision": revision,
        "published_settings": _published_settings(release, alpha),
    }
    if release.kind == "refadapter":
        save_refadapter(release, out, alpha, about)
    else:
        about["reference_digest"] = frames_digest(read_video(reference)) if reference else None
        save_action(action_of(release), out, about)
    return f"{_summary(release)}\n  written to {out}"


def export_file(source: Path, out: Path, backbone: str = BACKBONE, alpha: float = ALPHA) -> str:
    """Write a RefAdapter folder, or an action (a fit of the benchmark too), as a file of the release.

    Backbone, result and errors are those of `import_file`. `alpha` is the one that a RefAdapter's file will be read
    with; the release's code has 32.
    """
    from flexiact.checkpoints.authors import save_release

    if not _is_ours(source):
        raise ValueError(f"checkpoint: {source} is neither a RefAdapter folder in peft's format nor .safetensors")
    release, own_alpha, _ = _load_ours(source, _backbone(backbone)[0])
    if own_alpha is not None and own_alpha != alpha:
        raise ValueError(f"alpha: {source} has {own_alpha:g}; read with {alpha:g} it would have another strength")
    save_release(release, out)
    return f"{_summary(release)}\n  written to {out}"


def _is_ours(path: Path) -> bool:
    """True if a file or folder has our form; a .safetensors file has it if it holds no names of the release."""
    if path.suffix != ".safetensors":
        return (path / "adapter_config.json").is_file()
    from flexiact.checkpoints.authors import holds_release
    from flexiact.checkpoints.ours import load_action

    return not holds_release(load_action(path)[0])


def _load_ours(path: Path, sizes: Sizes | None) -> tuple[Release, float | None, dict[str, Any]]:
    from flexiact.checkpoints.authors import refuse_others
    from flexiact.checkpoints.ours import load_action, load_refadapter, release_of

    if path.is_dir():
        return load_refadapter(path, sizes)
    action, about = load_action(path)
    refuse_others(path, action)
    return replace(release_of(action, sizes, about.get("dtype", "float32")), source=path.name), None, about


def _backbone(name: str) -> tuple[Sizes | None, str | None]:
    """Sizes of a backbone, and its revision if one is known, without its weights."""
    if name == "none":
        return None, None
    import torch
    from diffusers import CogVideoXTransformer3DModel

    from flexiact.backbone.specs import configurations, find_spec
    from flexiact.checkpoints.authors import Sizes
    from flexiact.media.digests import folder_digest

    _, spec = find_spec(name)
    try:
        with torch.device("meta"):
            transformer = CogVideoXTransformer3DModel.from_config(configurations(spec)["transformer"])
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(f"backbone: {name} cannot be looked up, `none` does without ({reason})") from error
    return Sizes.of(transformer), folder_digest(spec.source) if isinstance(spec.source, Path) else spec.revision


def _published_settings(release: Release, alpha: float) -> dict[str, Any]:
    """The paper's hyper-parameters; a file does not state whether it was trained with them."""
    from flexiact.batches import FitConfig
    from flexiact.recorded import recorded
    from flexiact.train_refadapter.configs import RefAdapterConfig

    if release.kind == "refadapter":
        return recorded(RefAdapterConfig(rank=release.inner, alpha=alpha))
    return recorded(FitConfig(embedding_tokens=release.inner))


def _summary(release: Release) -> str:
    if release.kind == "refadapter":
        inner = f"rank {release.inner}"
    else:
        from flexiact.checkpoints.ours import action_of
        from flexiact.embedding import ACTION_KEY, spread

        apart = spread(action_of(release)[ACTION_KEY])
        inner = f"tokens per block {release.inner}, {apart:.2g} of their size apart"
    count = sum(tensor.numel() for tensor in release.tensors.values())
    return (
        f"{release.kind} {release.source}: {len(release.tensors)} tensors, {release.sizes.blocks} blocks, "
        f"width {release.sizes.width}, {inner}, {count:,} numbers of {release.dtype}"
    )


main = command(parser, _convert)
