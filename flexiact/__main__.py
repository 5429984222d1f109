"""Make the subject of one image do the action of one reference video: `python -m flexiact`.

Exit codes: 0 done; 2 no video was made, and one line on standard error says why; 130 interrupted.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flexiact.terminal.cli import BACKBONE_HELP, OneLineParser, add_device_options, command

if TYPE_CHECKING:
    from flexiact.one_video.make import Made, Setup

EXAMPLES = """examples:
  python -m flexiact --image cat.png --reference dance.mp4 --caption "a man dances" --prompt "a cat dances" \\
      --out cat_dances.mp4 --backbone cogvideox-5b-i2v --refadapter FOLDER
  python -m flexiact --image dog.png --action learned.safetensors --prompt "a dog dances" --out dog_dances.mp4 \\
      --backbone cogvideox-5b-i2v --refadapter FOLDER --offload
  python -m flexiact --demo
"""
ONLY_PUPPETS = (
    "backbone: the built-in model only knows puppets; give --backbone cogvideox-5b-i2v (a GPU, and about 21 GB from "
    "the model hub), --backbone FOLDER with such a model, --backbone puppets if the image is a puppet, or try --demo"
)
DEMO_FOLDER = Path("flexiact-demo")
_NEEDED = ("image", "reference", "caption", "prompt", "out")
_LEARNING = ("reference", "caption", "start", "fit_steps")  # options that only learning an action reads


class _UsageError(ValueError):
    """A mistake in the command line alone; the message is one line."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no network library."""
    p = OneLineParser(
        prog="python -m flexiact",
        description=(__doc__ or "").split(": ")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--image", type=Path, metavar="FILE", help="the target: any image; cut to the backbone's proportions"
    )
    p.add_argument("--reference", type=Path, metavar="FILE", help="video of the action, cut to it, or folder of frames")
    start = "second of a long reference at which a clip at its own speed begins (the whole reference, faster)"
    p.add_argument("--start", type=float, metavar="S", help=start)
    p.add_argument("--caption", metavar="TEXT", help="what the reference shows")
    p.add_argument("--action", type=Path, metavar="FILE", help="learned before or imported, instead of a reference")
    p.add_argument("--prompt", metavar="TEXT", help="what the video shall show")
    p.add_argument("--out", type=Path, metavar="FILE", help=f".mp4, or .mkv for lossless; demo: folder ({DEMO_FOLDER})")
    p.add_argument("--backbone", metavar="NAME", help=BACKBONE_HELP)
    p.add_argument("--refadapter", metavar="DIR", help="in peft's format, or none (the backbone's own)")
    p.add_argument("--method-preset", metavar="NAME", help="settings in flexiact.method.PRESETS (the backbone's own)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of all noise (%(default)s)")
    p.add_argument("--steps", type=int, metavar="N", help="of the sampler (the backbone's own number)")
    p.add_argument("--fit-steps", type=int, metavar="N", help="of learning the action (the preset's number)")
    p.add_argument(
        "--cache", type=Path, metavar="DIR", help="keeps learned actions for other images (~/.cache/flexiact)"
    )
    add_device_options(p)
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--demo", action="store_true", help="two puppets instead of files: needs nothing else")
    mode.add_argument("--web", action="store_true", help="a page in the browser; needs the extra 'demo' (gradio)")
    return p


def _check(args: argparse.Namespace) -> None:
    """Refuse wrong options that can be found without loading a library."""
    given = [name for name in (*_NEEDED, "action", "start") if getattr(args, name) is not None]
    if args.demo or args.web:
        odd = [name for name in given if args.web or name != "out"]
        if odd:
            raise _UsageError(f"{odd[0]}: does not go with {'--demo' if args.demo else '--web'}")
        if args.demo and args.backbone not in {None, "puppets"}:
            raise _UsageError("backbone: the demo runs on puppets")
        return
    if not given:
        raise _UsageError("nothing to do: give --image, --reference, --caption, --prompt and --out, or try --demo")
    needless = [name for name in _LEARNING if args.action and getattr(args, name) is not None]
    if needless:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in needless)
        raise _UsageError(f"action: was learned already, so it goes without {options}")
    missing = [f"--{name}" for name in _NEEDED if name not in given and not (args.action and name in _LEARNING)]
    if missing:
        raise _UsageError(f"missing: {' '.join(missing)} (--help shows the options)")
    for name in ("image", "action" if args.action else "reference"):  # the commonest mistake, before advice on models
        if not getattr(args, name).exists():
            raise _UsageError(f"{name}: no such file: {getattr(args, name)}")
    if args.backbone is None:
        raise _UsageError(ONLY_PUPPETS)


def _run(args: argparse.Namespace) -> int:
    _check(args)
    if args.web:
        from flexiact.one_video.web import check_installed, serve

        check_installed()
        if args.backbone is None:
            raise _UsageError(ONLY_PUPPETS)
        serve(_setup(args))
        return 0
    start = time.perf_counter()
    # From here on networks are loaded, which takes seconds instead of milliseconds.
    from torch import OutOfMemoryError

    from flexiact.terminal.progress import in_words

    try:
        where, made = _demo(args) if args.demo else _one(args)
    except OutOfMemoryError as error:
        raise ValueError(f"device: too little memory ({str(error).splitlines()[0]})") from error
    print(f"{where}; made in {in_words(time.perf_counter() - start)}: {made.costs()}")
    return 0


def _one(args: argparse.Namespace) -> tuple[str, "Made"]:
    from flexiact.fits import FitFolder
    from flexiact.one_video.make import Order, Shown, check_order, load_method, make_video

    action = args.action or Shown(args.reference, args.caption, args.start)
    order = Order(args.image, action, args.prompt, args.seed, args.out)
    check_order(order)
    setup = _setup(args)
    return str(order.out), make_video(load_method(setup), FitFolder(setup.cache), order)


def _demo(args: argparse.Namespace) -> tuple[str, "Made"]:
    from flexiact.fits import FitFolder
    from flexiact.media.files import make_folder
    from flexiact.one_video.make import load_method
    from flexiact.puppets.demo import show
    from flexiact.ranges import check_seed

    check_seed(args.seed)
    folder = make_folder("out", args.out or DEMO_FOLDER)
    setup = _setup(args)
    made = show(load_method(setup), FitFolder(setup.cache), folder, args.seed)
    return f"{folder}: reference.mp4, target.png, result.mp4, and all three in side_by_side.mp4", made


def _setup(args: argparse.Namespace) -> "Setup":
    from flexiact.backbone.loading import Savings
    from flexiact.one_video.make import Setup

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Setup(
        backbone=args.backbone or "puppets",
        refadapter=args.refadapter,
        method_preset=args.method_preset,
        device=args.device,
        steps=args.steps,
        fit_steps=args.fit_steps,
        cache=args.cache or caches / "flexiact",
        savings=Savings(args.offload, args.quantise, args.dtype),
        fits=args.action is None,
    )


main = command(parser, _run, interrupted="stopped; no video was written")

if __name__ == "__main__":
    sys.exit(main())
