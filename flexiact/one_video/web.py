"""Serve `flexiact.one_video.make` as a web page with gradio, which only the extra `demo` installs."""

import tempfile
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexiact.one_video.make import Setup


def check_installed() -> None:
    """Refuse if gradio is not installed.

    Raises:
        ValueError: If gradio is missing; the message says how to install it.
    """
    if find_spec("gradio") is None:
        raise ValueError("web: gradio is not installed; install it with: pip install 'gradio>=5'")


def serve(setup: "Setup") -> None:
    """Load the model once and serve the page until interrupted.

    Raises:
        ValueError: If the model cannot be loaded; the message names the field.
    """
    from flexiact.fits import FitFolder
    from flexiact.one_video.make import Order, Shown, check_order, load_method, make_video
    from flexiact.terminal.notes import each_once

    gradio = import_module("gradio")  # imported by name, because nothing else in the suite needs it
    method, fits = load_method(setup), FitFolder(setup.cache)
    folder = Path(tempfile.mkdtemp(prefix="flexiact-"))

    def transfer(image: str | None, reference: str | None, caption: str, prompt: str, seed: float | None) -> str:
        if not (image and reference):
            raise gradio.Error("An image and a reference video are needed.")
        out = Path(tempfile.mkdtemp(dir=folder)) / "video.mp4"
        order = Order(Path(image), Shown(Path(reference), caption), prompt, int(seed or 0), out)
        try:
            with each_once():
                check_order(order)
                make_video(method, fits, order)
        except ValueError as error:
            raise gradio.Error(escape(str(error), quote=False)) from error  # gradio shows HTML
        return str(out)

    inputs = [
        gradio.Image(type="filepath", label="Target image"),
        gradio.Video(label="Reference video"),
        gradio.Textbox(label="What the reference shows"),
        gradio.Textbox(label="What the video shall show"),
        gradio.Number(value=0, precision=0, label="Seed"),
    ]
    gradio.Interface(transfer, inputs, gradio.Video(label="Result"), title="Action transfer").launch()
