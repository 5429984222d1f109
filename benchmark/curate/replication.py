"""The suite that is drawn last, to see which claims hold again on other references: `puppets-replicate`.

Its seed is a digest of everything that claims are about: the weights, the settings and versions of the methods, and the
pairs that are tested. So nobody can choose the draw, and nobody can fit anything to it: whoever changes one of these
gets other cases. The actions are the default suite's, because all actions are named before training begins. Scenes,
bodies, views and poses are new, on both sides.
"""

from dataclasses import replace

from benchmark.curate.balanced import BalancedRecipe, balanced
from benchmark.planning.keys import method_key
from benchmark.planning.methods import METHODS
from benchmark.suites.puppets import REPLICATION, PuppetCase, PuppetSuite, load_suite
from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import load_backbone
from flexiact.media.digests import file_digest, folder_digest, json_digest
from reports.analysis.claims import FAMILY, family

_TARGETS = 2
_WEIGHTS = ("backbone", "refadapter", "control", "pose_driver")
_DIGITS = 12  # of the digest, in the suite's summary and as its seed


def frozen() -> str:
    """12 hex digits: a digest of the weights that draw, of all methods that claims name, and of the file of claims."""
    weights = {name: folder_digest(PUPPET_WEIGHTS / name, [".safetensors"]) for name in _WEIGHTS}
    backbone = load_backbone("puppets", "cpu")
    methods = {name: method_key(METHODS[name].build(backbone)) for pair in family() for name in pair}
    return json_digest({"weights": weights, "methods": methods, "claims": file_digest(FAMILY)})[:_DIGITS]


def redrawn(name: str, summary: str) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make the suite from what is frozen now; its summary says from what.

    Raises:
        UsageError: If a reference finds too few targets.
    """
    seed = frozen()
    suite, cases = balanced(name, BalancedRecipe(summary, "test", _TARGETS, int(seed, 16), fresh=True))
    return replace(suite, summary=f"{summary}; seed {seed}"), cases


def is_outdated() -> bool:
    """Return True if the shipped suite was drawn from other weights, settings or claims than those of today."""
    return not load_suite(REPLICATION).summary.endswith(f"seed {frozen()}")
