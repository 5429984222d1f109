"""Convert the colours of pictures with an ICC profile to sRGB (littleCMS through Pillow)."""

import io
import struct
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import ExifTags, Image, ImageCms

HDR = {16: "PQ", 18: "HLG"}
"""Names of transfer functions with a high dynamic range, by their number in H.273."""

WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
"""Names of primaries that are wider than those of sRGB, by their number in H.273."""

_NUMBERS = {"PNG": (b"cICP", ">BB"), "AVIF": (b"nclx", ">HH")}
"""Marks of a format before the numbers of primaries and transfer function, and the form of these."""

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_SAME = 2
"""A profile that moves no colour by more than this many of 256 levels counts as sRGB, and pixels stay unchanged."""

_SRGB_GAMMA, _SRGB_PRIMARIES = 0.45455, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # chunks gAMA, cHRM of PNG
_NEAR = 0.02

_SPACES = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Convert an image to sRGB.

    Args:
        image: Image of mode RGB, RGBA, L, CMYK, or another mode without its own colour space.
        profile: ICC profile of the image; None if it has none.

    Returns:
        The image, in its former mode if nothing was converted, and the text of a note on the change, or "".
    """
    if not profile:
        return image, ""
    read = _read(profile)
    if read is None:
        return image, "has a colour profile that cannot be read: its colours are taken as sRGB"
    space, name = read
    if space == "RGB" and image.mode not in _SPACES["RGB"]:
        image = image.convert("RGB")
    if image.mode not in _SPACES.get(space, ()):
        return image, f"has a colour profile for {space} on {image.mode} pixels: its colours are taken as sRGB"
    if space != "CMYK" and _is_srgb(profile, _SPACES[space][0]):
        return image, ""
    to = "RGBA" if image.mode == "RGBA" else "RGB"
    return _transform(profile, image.mode, to).apply(image), f"is converted to sRGB from {name}"


def stated_otherwise(image: Image.Image, start: bytes) -> str:
    """Text of a note on colours that a picture without a profile states as others than sRGB; "" if there are none.

    `start` are the first bytes of its file.
    """
    if image.info.get("icc_profile"):
        return ""
    if numbered := _numbered(image.format, start):
        return f"states {numbered} without a profile: its colours are taken as sRGB"
    if "srgb" in image.info:
        return ""
    exif = image.getexif()
    adobe = exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03"  # Design rule for Camera File system
    if adobe or exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == 2:
        return "is in Adobe RGB by its EXIF, without a profile: its colours are taken as sRGB"
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity")
    odd = gamma is not None and abs(gamma / _SRGB_GAMMA - 1) > _NEAR
    if primaries is not None:
        odd = odd or max(abs(a - b) for a, b in zip(primaries, _SRGB_PRIMARIES, strict=True)) > _NEAR
    return "states a gamma or primaries of its own, without a profile: its colours are taken as sRGB" if odd else ""


def _numbered(form: str | None, start: bytes) -> str:
    """Colours that a PNG or an AVIF states by numbers of H.273, if they are no sRGB; "" if they are or none stand."""
    mark, numbers = _NUMBERS.get(form or "", (b"", ""))
    place = start.find(mark) + len(mark)
    if not mark or place < len(mark) or len(start) < place + struct.calcsize(numbers):
        return ""
    primaries, transfer = struct.unpack_from(numbers, start, place)
    return " ".join(filter(None, (f"HDR, {HDR[transfer]}" if transfer in HDR else "", WIDE.get(primaries))))


def _read(profile: bytes) -> tuple[str, str] | None:
    """Colour space and name of a profile; None if it cannot be used."""
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if space in _SPACES:
            _transform(profile, _SPACES[space][0], "RGB")
        return space, " ".join(ImageCms.getProfileDescription(opened).split()) or "another profile"
    except (OSError, ImageCms.PyCMSError):
        return None


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str, to: str) -> ImageCms.ImageCmsTransform:
    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(opened, _SRGB, mode, to, ImageCms.Intent.RELATIVE_COLORIMETRIC)


@lru_cache(maxsize=8)
def _is_srgb(profile: bytes, mode: str) -> bool:
    levels = (0, 15, 51, 85, 119, 153, 187, 221, 255)
    colours = Image.fromarray(np.array([list(product(levels, repeat=3))], dtype=np.uint8)).convert(mode)
    converted = np.asarray(_transform(profile, mode, "RGB").apply(colours)).astype(int)
    return int(np.abs(converted - np.asarray(colours.convert("RGB"))).max()) <= _SAME
