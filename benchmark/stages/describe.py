"""Describe a run: run.json holds everything that decides what the run is, and `plan` makes its cells.

The module also decides whether two descriptions can share one directory.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError
from benchmark.planning.variants import entry_of
from benchmark.stages.scoring import backend_of
from benchmark.store.folder import SCHEMA_VERSION
from benchmark.store.schema.run_json import Description, check_description
from benchmark.submissions.submission import Submission
from benchmark.suites.case import Case
from benchmark.suites.truth import render_settings
from flexiact.backbone.backbone import Backbone
from flexiact.task import ActionTransfer
from metrics import METRICS

_MIB = 1024.0**2


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Entry of a backbone in run.json."""
    names = "num_frames height width fps max_text_tokens num_inference_steps guidance_scale num_parameters".split()
    values = {name: getattr(backbone, name) for name in names}
    return {"name": backbone.name, "revision": backbone.revision, "dtype": str(backbone.dtype).split(".")[-1], **values}


def describe_method(name: str, method: ActionTransfer, backbone: Backbone) -> dict[str, Any]:
    """Entry of a method in run.json: name, identity, weights that it loads, and its whole configuration."""
    fit_config, transfer_config = method.fit_config(), method.transfer_config()
    return {
        "kind": "method",
        "version": method.version,
        "method_id": method.method_id,
        "uses_reference": method.uses_reference,
        "summary": entry_of(name).summary,
        "extra_supervision": entry_of(name).extra_supervision,
        "adapter_mib": adapter_mib(backbone, {**fit_config, **transfer_config}),
        "fit_config": fit_config,
        "transfer_config": transfer_config,
    }


def adapter_mib(backbone: Backbone, config: Mapping[str, Any]) -> float:
    """MiB of the pretrained weights that a method loads in addition to the backbone's own, such as RefAdapter's.

    A configuration names each of them by its digest, under the name of the backbone's field that holds its folder.
    """
    folders = [getattr(backbone, field.name) for field in fields(backbone) if config.get(field.name)]
    found = [path for folder in folders if isinstance(folder, Path) for path in folder.glob("*.safetensors")]
    return sum(path.stat().st_size for path in found) / _MIB


def describe_bounds(truth_known: bool) -> dict[str, dict[str, Any]]:
    """Entries in run.json of all bounds that can be made."""
    return {
        name: {
            "kind": "bound",
            "version": bound.version,
            "summary": bound.summary,
            "extra_supervision": bound.sees,
            "sampled": bound.sampled,
            "fit_config": {},
            "transfer_config": bound.config(),
        }
        for name, bound in BOUNDS.items()
        if truth_known or not bound.needs_truth
    }


def describe_metric(name: str, backends: Mapping[str, str], headline: str) -> dict[str, Any]:
    """Entry of a metric in run.json; `headline` names the metric that tables are sorted by."""
    metric = METRICS[name]
    fields = "version unit higher_is_better bounds needs summary".split()
    flags = {"headline": name == headline, "backend": backend_of(metric, backends)}
    return {field: getattr(metric, field) for field in fields} | flags


def describe_run(
    suite: Mapping[str, str | int | None],
    cases: Iterable[Case],
    seeds: Iterable[int],
    backbone: Backbone,
    methods: Mapping[str, ActionTransfer],
    metrics: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Content of run.json without command and provenance.

    A fit takes the seed of its transfer, unless a session names others; entries of `metrics` are those of
    `describe_metric`.

    Raises:
        ValueError: If the truth of only some cases is known, or a configuration is not JSON.
    """
    cases = tuple(cases)
    truth_known = all(case.truth_known for case in cases)
    if not truth_known and any(case.truth_known for case in cases):
        raise ValueError("cases: puppets and files cannot share a run")
    described = {name: describe_method(name, method, backbone) for name, method in methods.items()}
    run = {
        "schema_version": SCHEMA_VERSION,
        **suite,
        "seeds": sorted(set(seeds)),
        "fit_seeds": None,
        "backbone": describe_backbone(backbone),
        "truth": render_settings() if truth_known else {"known": False},
        "methods": described | describe_bounds(truth_known),
        "metrics": dict(metrics),
        "cases": {case.case_id: case.describe() for case in cases},
    }
    try:
        # In the form that comes back from disk, so that old and new descriptions can be compared.
        plain = dict(json.loads(json.dumps(run, allow_nan=False)))
    except TypeError as error:
        raise ValueError(f"a method's configuration is not JSON: {error}") from error
    Description.model_validate(plain)
    return plain


def with_submissions(run: dict[str, Any], submissions: Iterable[Submission]) -> dict[str, Any]:
    """Description of a run with submissions among its methods, before the bounds."""
    entries = {submission.name: submission.describe() for submission in submissions}
    methods = {name: entry for name, entry in run["methods"].items() if entry["kind"] == "method"}
    run = {**run, "methods": {**methods, **entries, **run["methods"]}}
    Description.model_validate(run)
    return run


def merged(stored: Mapping[str, Any] | None, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the description that a directory holds with that of a new session.

    Methods, cases, seeds and metrics add up. A method or metric that is in both is taken from `fresh`: if it changed,
    its keys changed, and the old results no longer belong to the run. The videos of a submission add up as well.

    Raises:
        UsageError: If suite, backbone or truth differ, or a case changed; the two cannot share a directory then.
    """
    stored = fresh if stored is None else stored
    if stored is not fresh:
        try:
            check_description(stored)
        except ValueError as error:
            raise UsageError(f"the run directory's run.json is damaged: {error}; choose another --out") from error
    if stored.get("suite") != fresh["suite"]:
        raise UsageError(
            f"the run directory holds suite '{stored.get('suite')}', not '{fresh['suite']}'; choose another --out"
        )
    if stored.get("suite_digest") != fresh["suite_digest"]:
        raise UsageError(
            f"the run directory holds version {stored.get('suite_version')} of the suite, "
            f"this is version {fresh['suite_version']} or it was changed since; choose another --out"
        )
    for part in ("backbone", "truth"):
        for name, value in fresh[part].items():
            if stored.get(part, {}).get(name) != value:
                raise UsageError(
                    f"the run directory was made with {part} {name} {stored.get(part, {}).get(name)!r}, "
                    f"this is {value!r}; choose another --out"
                )
    for case_id, case in fresh["cases"].items():
        before = stored["cases"].get(case_id, case)
        if before != case:
            field = next(name for name in case if before.get(name) != case[name])
            raise UsageError(f"case {case_id}: its {field} is not what the run directory has; choose another --out")
    run = {**stored, **fresh}
    methods = {**stored["methods"], **fresh["methods"]}
    for name, entry in stored["methods"].items():
        if entry["kind"] == methods[name]["kind"] == "submission":
            methods[name] = methods[name] | {"videos": {**entry["videos"], **methods[name]["videos"]}}
    variants = [name for name, entry in methods.items() if entry["kind"] != "bound" and name not in METHODS]
    run["methods"] = _in_order(methods, [*METHODS, *variants, *BOUNDS])
    run["metrics"] = _in_order({**stored["metrics"], **fresh["metrics"]}, list(METRICS))
    run["cases"] = _in_order({**stored["cases"], **fresh["cases"]}, sorted({*stored["cases"], *fresh["cases"]}))
    run["seeds"] = sorted({*stored["seeds"], *fresh["seeds"]})
    run["fit_seeds"] = _merged_fit_seeds(stored.get("fit_seeds"), fresh.get("fit_seeds"))
    return run


def _merged_fit_seeds(before: list[int] | None, after: list[int] | None) -> list[int] | None:
    if before is None and after is None:
        return None
    if before is None or after is None:
        sides = ("with", "without") if after is None else ("without", "with")
        raise UsageError(f"the run directory was made {sides[0]} --fit-seeds, this is {sides[1]}; choose another --out")
    return sorted({*before, *after})


def with_history(
    stored: Mapping[str, Any] | None, run: dict[str, Any], command: str, provenance: Mapping[str, Any], new: bool
) -> dict[str, Any]:
    """Add history to a description: command and provenance of the first session, and of later ones that differ.

    A session that adds nothing (`new` is False) is not recorded.
    """
    session = {"command": command, "provenance": dict(provenance)}
    if stored is None:
        return run | session | {"later_sessions": []}
    first = {name: stored[name] for name in ("command", "provenance")}
    later = list(stored["later_sessions"])
    if new and session not in [first, *later]:
        later.append(session)
    return run | first | {"later_sessions": later}


def _in_order(entries: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """Entries in the table's order; entries that the table no longer has come last."""
    names = [name for name in order if name in entries]
    return {name: entries[name] for name in (*names, *(n for n in entries if n not in names))}
