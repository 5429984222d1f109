"""Everything that a published result depends on, and what makes it stale."""

import json
from pathlib import Path

from benchmark.planning.methods import METHODS
from benchmark.publish.products import CLAIMED, Product
from benchmark.suites.puppets import HEADLINE, REPLICATION, load_suite
from flexiact import PUPPET_WEIGHTS

MADE = "made.json"
PLANS = Path(__file__).parents[1] / "ablate"


def inputs_of(product: Product) -> dict[str, str]:
    """Version or digest of everything that a result depends on, by a name for people."""
    from benchmark.planning.keys import method_key
    from benchmark.suites.truth import TRUTH_VERSION
    from flexiact.backbone.backbone import load_backbone
    from flexiact.media.digests import weights_digest
    from flexiact.puppets.world.render import RENDERER_VERSION

    found = {"renderer": str(RENDERER_VERSION), "truth": str(TRUTH_VERSION)}
    found |= {f"suite {name}": str(load_suite(name).digest) for name in product.suites}
    found |= {f"weights {name}": weights_digest(PUPPET_WEIGHTS / name) or "none" for name in product.weights}
    for step in product.steps:
        found |= read_by(step)
    backbone = load_backbone("puppets", "cpu")
    for name in product.methods:
        found[f"method {name}"] = method_key(METHODS[name].build(backbone))
    return found


def read_by(step: str) -> dict[str, str]:
    """Inputs that a command has whatever methods and weights its product names."""
    from benchmark.bounds.bounds import BOUNDS
    from benchmark.planning.keys import key
    from benchmark.planning.selection import select
    from benchmark.store.schema.rows import FEATURES_VERSION
    from benchmark.study.corruptions import VERSION
    from flexiact.media.digests import file_digest, json_digest
    from flexiact.puppets.recipes.clip_shards import CLIPS_VERSION
    from metrics import METRICS
    from reports.analysis.claims import family, margin

    program, first = step.split()[:2]
    runs, spoils = program in ("benchmark.run", "benchmark.ablate"), step.startswith("benchmark.study --")
    found = {"corruptions": str(VERSION)} if spoils else {}
    if runs or spoils:
        found |= {"features": str(FEATURES_VERSION)}
        asked = step.partition("--metrics ")[2].split(" --")[0].split() or ["all"]
        measured = select(asked, list(METRICS), "metric")
        found |= {f"metric {name}": str(METRICS[name].version) for name in measured}
    if runs:
        said = {name: {"version": bound.version, "config": bound.config()} for name, bound in BOUNDS.items()}
        found |= {f"bound {name}": key("bound", settings) for name, settings in said.items()}
    if program == "flexiact.puppets.train":
        found["training clips"] = str(CLIPS_VERSION)
    if program in ("reports.build", "reports.power", "reports.difficulty"):
        found["claims"] = json_digest([family(), margin(HEADLINE)])
    if program == "reports.replication":
        found["claims to repeat"] = file_digest(_claims_file()) if _claims_file().is_file() else "none"
    if program == "benchmark.ablate":
        found[f"plan {first}"] = file_digest(PLANS / f"{first}.toml")
    return found


def stale(folder: Path, inputs: dict[str, str], commands: list[str]) -> list[str]:
    """Reasons why a result has to be made anew; none if it is up to date."""
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        before = {**made["inputs"], "commands": made["commands"]}
    except (OSError, ValueError, KeyError, TypeError):
        return [f"no {MADE}: made before it was kept" if folder.is_dir() else "missing"]
    now = {**inputs, "commands": commands}
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    kinds = dict.fromkeys(name.partition(" ")[0] for name in changed)
    return [f"changed: {_listed([name for name in changed if name.partition(' ')[0] == kind])}" for kind in kinds]


def obstacles_to(product: Product) -> list[str]:
    """Reasons why a replication cannot be made yet, and what to do first; none for anything else."""
    from benchmark.curate.replication import is_outdated

    if REPLICATION not in product.suites:
        return []
    said = "something that claims are about was changed after the draw; first python -m benchmark.curate"
    found = [f"{said} {REPLICATION}"] if is_outdated() else []
    if not _claims_file().is_file():
        found.append("there are no claims to repeat; first python -m benchmark.publish claims --make")
    return found


def _claims_file() -> Path:
    from reports.tables.formats import CLAIMS

    return CLAIMED / CLAIMS


def _listed(names: list[str]) -> str:
    rest = len(names) - 2
    return ", ".join(names[:2]) + (f" and {rest} more" if rest > 0 else "")
