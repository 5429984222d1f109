"""The suite that is drawn last, to see which claims hold again on other references: `puppets-replicate`.

Its seed is a digest of everything that claims are about: the weights that draw and judge, the settings and versions of
the methods, the pairs that are tested, the headline and its truth. So a change of any of these asks for another draw.
Actions are the default suite's, because all actions are named before training begins. Scenes, bodies, views and poses
are new, on both sides.
"""

from dataclasses import replace

from benchmark.curate.balanced import BalancedRecipe, balanced
from benchmark.planning.keys import method_key
from benchmark.planning.methods import METHODS
from benchmark.suites.puppets import HEADLINE, REPLICATION, PuppetCase, PuppetSuite, load_suite
from benchmark.suites.truth import render_settings
from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import load_backbone
from flexiact.media.digests import json_digest, weights_digest
from metrics import METRICS
from reports.analysis.claims import family, margin

_WEIGHTS = ("backbone", "refadapter", "control", "pose_driver", "pose")
_DIGITS = 12  # of the digest, which is the seed


def frozen() -> str:
    """12 hex digits: the digest of everything that claims are about."""
    backbone, named = load_backbone("puppets", "cpu"), {name for pair in family() for name in pair}
    return json_digest(
        {
            "weights": {name: weights_digest(PUPPET_WEIGHTS / name) for name in _WEIGHTS},
            "methods": {name: method_key(METHODS[name].build(backbone)) for name in named},
            "pairs": sorted(family()),
            "headline": [HEADLINE, METRICS[HEADLINE].version, margin(HEADLINE)],
            "truth": render_settings(),
        }
    )[:_DIGITS]


def redrawn(name: str, summary: str, targets: int) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make the suite from what is frozen now, with some targets a reference.

    Raises:
        UsageError: If a reference finds too few targets.
    """
    seed = frozen()
    suite, cases = balanced(name, BalancedRecipe(summary, "test", targets, int(seed, 16), fresh=True))
    return replace(suite, drawn_after=seed), cases


def is_outdated() -> bool:
    """Return True if the shipped suite was drawn before something that claims are about was changed."""
    return load_suite(REPLICATION).drawn_after != frozen()
