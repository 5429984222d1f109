"""Variants of methods: an entry of `METHODS` with other settings, under a name that says which.

A variant's name is `METHOD[SETTING=VALUE,...]`. It alone says how to build the variant, so that plans, workers and
stored runs need nothing else. Settings of settings have dotted names, such as `schedule.alpha`. A value `x2` is twice
the method's own number.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from math import isfinite
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from benchmark.planning.methods import METHODS, MethodEntry
from benchmark.planning.selection import UsageError, unknown

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import ActionTransfer

_NAME = re.compile(r"(?P<method>[^\[\]]+)\[(?P<settings>[^\[\]]+)\]")
_SETTING = re.compile(r"(?P<setting>[a-z_][a-z_0-9.]*)=(?P<value>[\w.+-]+)", re.ASCII)
_FACTOR = re.compile(r"x(\d+(?:\.\d+)?)", re.ASCII)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


def variant_name(asked: Iterable[str]) -> str:
    """Name of the variant that has all settings given as METHOD.SETTING=VALUE.

    Raises:
        UsageError: If a text has another form, the method is unknown, or the texts name two methods or one setting
            twice.
    """
    methods, settings = set(), {}
    for text in asked:
        method, _, rest = text.partition(".")
        found = _SETTING.fullmatch(rest)
        if not found:
            raise UsageError(f"set: expected METHOD.SETTING=VALUE as in flexiact.schedule.alpha=2, got '{text}'")
        if method not in METHODS:
            raise UsageError(unknown(method, list(METHODS), "method"))
        if found["setting"] in settings:
            raise UsageError(f"set: {method}.{found['setting']} is given twice")
        methods.add(method)
        settings[found["setting"]] = found["value"]
    if len(methods) != 1:
        raise UsageError(f"set: one variant is of one method, got {', '.join(sorted(methods)) or 'none'}")
    return named(methods.pop(), settings)


def named(method: str, settings: Mapping[str, object]) -> str:
    """Name of a method with settings; without settings it is the method's own."""
    texts = [f"{name}={_text(settings[name])}" for name in sorted(settings)]
    return f"{method}[{','.join(texts)}]" if texts else method


def _text(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def entry_of(name: str) -> MethodEntry:
    """Entry of a method, or of a variant by its name.

    Raises:
        KeyError: If there is no such method.
    """
    found = _NAME.fullmatch(name)
    if not found:
        return METHODS[name]
    base, settings = METHODS[found["method"]], dict(part.split("=", 1) for part in found["settings"].split(","))

    def build(backbone: "Backbone") -> "ActionTransfer":
        return _rebuilt(base.build(backbone), found["method"], settings)

    return replace(base, build=build, summary=f"{found['method']} with {found['settings'].replace(',', ', ')}")


def build_methods(names: Iterable[str], backbone: "Backbone") -> "dict[str, ActionTransfer]":
    """Build methods for a backbone.

    Raises:
        UsageError: If a method cannot be built on the backbone; the message says which methods can.
    """
    built: dict[str, ActionTransfer] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            built[name] = entry_of(name).build(backbone)
        except ValueError as error:
            refused[name] = str(error)
    for name, reason in refused.items():
        others = f"; others can: --methods {','.join(built)}" if built else ""
        raise UsageError(f"method {name} cannot run on backbone {backbone.name}: {reason}{others}")
    return built


def _rebuilt(method: Any, name: str, settings: Mapping[str, str]) -> "ActionTransfer":
    """A method of the same class with changed settings; an error names the setting that is wrong."""
    config = getattr(method, "config", None)
    if config is None:
        raise ValueError(f"{name}: it has no settings")
    known = {name: kind for half in (config.fit, config.transfer) for name, *kind in _settings(half)}
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for setting, text in settings.items():
        if setting not in known:
            raise ValueError(unknown(setting, list(known), f"setting of {name}"))
        first, _, rest = setting.partition(".")
        (inner.setdefault(first, {}) if rest else changes)[rest or first] = _typed(setting, text, *known[setting])
    for first, values in inner.items():  # together, since one may be valid only with another
        half = config.fit if hasattr(config.fit, first) else config.transfer
        changes[first] = replace(getattr(half, first), **values)
    return type(method)(method.backbone, config.changed(**changes))


def _settings(settings: Any, before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names, types and values of a dataclass' settings, and of those of its fields that are dataclasses."""
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        yield f"{before}{field.name}", hints[field.name], value
        if is_dataclass(value):
            yield from _settings(value, f"{before}{field.name}.")


def _typed(setting: str, text: str, kind: Any, own: object) -> object:
    """The value that a text means for a setting of a type whose own value is `own`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    factor = _FACTOR.fullmatch(text)
    if factor and isinstance(own, int | float) and not isinstance(own, bool) and isfinite(own * float(factor[1])):
        times = own * float(factor[1])
        return times if float in kinds else round(times)
    if text in _WORDS:
        value = _WORDS[text]
        if type(value) in kinds:
            return value
    for number in (int, float):  # a whole number may be a float, never the other way round
        if number in kinds:
            try:
                found = number(text)
            except ValueError:
                continue
            if isfinite(found):
                return found
    for choices in (get_args(one) for one in kinds if get_origin(one) is Literal):
        if text in choices:
            return text
    if str in kinds:
        return text
    words = [w for one in kinds for w in _in_words(one)]
    raise ValueError(f"{setting}: expected {' or '.join(words)}, got {text}")


def _in_words(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    names = {bool: ["true", "false"], NoneType: ["none"], int: ["a whole number"], float: ["a number"]}
    return names.get(kind, [f"nothing ({kind.__name__} cannot be given as a text)"])
