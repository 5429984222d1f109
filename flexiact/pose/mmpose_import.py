"""Make mmpose importable with mmcv-lite and without mmdet.

mmpose 1.3 imports two modules at load time that no model used here ever calls: `mmcv.ops` (compiled, absent from
mmcv-lite) for ED-Pose, and `mmdet.utils` for RTMO. If the full packages are installed, nothing is replaced.
"""

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class MultiScaleDeformableAttention:
    """A stub for mmcv's compiled operator; building it is an error."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse to be built.

        Raises:
            RuntimeError: Always; the message names the missing package.
        """
        raise RuntimeError("MultiScaleDeformableAttention needs the full mmcv package; mmcv-lite does not hold it")


def reduce_mean(tensor: Any) -> Any:
    """mmdet's mean over processes, for a single process."""
    return tensor


def _module(name: str, **content: Any) -> None:
    module = ModuleType(name)
    # A spec and a path make `find_spec(name)` and "import name.other" work as for any package.
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(content)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(importlib.import_module(parent), child, module)


def install_stubs() -> tuple[str, ...]:
    """Put the stub modules that are needed into `sys.modules`.

    Returns:
        Names of the modules added by this call; empty if mmcv and mmdet are complete or the stubs are in place.
    """
    added: list[str] = []
    if "mmcv.ops" not in sys.modules and find_spec("mmcv._ext") is None:
        _module("mmcv.ops", MultiScaleDeformableAttention=MultiScaleDeformableAttention)
        added.append("mmcv.ops")
    if "mmdet" not in sys.modules and find_spec("mmdet") is None:
        _module("mmdet")
        _module("mmdet.utils", ConfigType=dict, reduce_mean=reduce_mean)
        added += ["mmdet", "mmdet.utils"]
    return tuple(added)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence mmpose: warnings about its own deprecated calls, and a log line about every weight's initialisation."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.INFO))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def import_mmpose(module: str = "mmpose.apis") -> ModuleType:
    """Import a module of mmpose, with the stubs in place and without the warnings of its outdated dependencies."""
    with quiet():
        install_stubs()
        return importlib.import_module(module)
