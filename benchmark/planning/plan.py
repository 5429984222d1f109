"""Plan the cells of a run, and each cell's keys, from the run's description. Pure: no file, no network, no clock.

A *fit key* covers everything that `fit` reads; a *sample key* covers everything that the video depends on. Variants of
a method that differ only at transfer therefore share fits. A cell whose inputs changed has another key, so it never
picks up old results.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.planning.keys import key, key_maker
from flexiact.media.digests import BACKBONE_FIT_FIELDS, canonical_json

FORMAT_FIELDS = ("num_frames", "height", "width", "fps")
"""Fields that a submitted video depends on."""

BACKBONE_SAMPLE_FIELDS = ("num_inference_steps", "guidance_scale")
"""Fields that a transfer depends on in addition."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One video to be made.

    Attributes:
        fit_key: Key of the fit that the video needs; None for bounds and submitted videos, which fit nothing.
        kind: Type of the cell: "method", "submission" or "bound".
        fit_seed: Seed of the fit; equal to `seed` where nothing is fitted.
    """

    key: str
    fit_key: str | None
    method: str
    kind: str
    case_id: str
    seed: int
    fit_seed: int


def plan(run: Mapping[str, Any]) -> list[Cell]:
    """All cells of a run by its run.json; cells that share a fit are neighbours.

    Returns:
        Methods x cases x seeds x fit seeds, submissions x cases x seeds, and bounds x cases: at all seeds if the bound
        is sampled, else at the first seed.

    Raises:
        ValueError: If two methods would make the same videos under two names.
    """
    told = {case_id: _Told.of(case) for case_id, case in run["cases"].items()}
    cells: list[Cell] = []
    for method, entry in run["methods"].items():
        if entry["kind"] == "method":
            cells += _method_cells(run["backbone"], method, entry, told, _pairs(run))
            continue
        key_of = _bound_key if entry["kind"] == "bound" else _submission_key
        for seed in run["seeds"] if _sampled(entry) else run["seeds"][:1]:
            for case_id, case in run["cases"].items():
                unfitted = key_of(run["backbone"], method, entry, case_id, case, seed)
                cells.append(Cell(unfitted, None, method, entry["kind"], case_id, seed, seed))
    owners: dict[str, Cell] = {}
    for cell in cells:
        other = owners.setdefault(cell.key, cell)
        if other is not cell:
            both = f"{_name(other)} and {_name(cell)}"
            raise ValueError(f"{both} are the same video under two names; leave one out, or choose another --out")
    return _grouped(cells)


def asked_of(cells: Iterable[Cell], run: Mapping[str, Any]) -> list[Cell]:
    """Cells that a session's description asks for, out of the cells of the whole run.

    A bound that is one video for all seeds counts under whichever seed it is stored.
    """
    methods, seeds, fit_seeds = run["methods"], set(run["seeds"]), run.get("fit_seeds")
    return [
        cell
        for cell in cells
        if cell.method in methods
        and cell.case_id in run["cases"]
        and (cell.seed in seeds or not _sampled(methods[cell.method]))
        and (cell.kind != "method" or fit_seeds is None or cell.fit_seed in fit_seeds)
    ]


def said_seed(seed: int, fit_seed: int | None) -> str:
    """The seed of a transfer in words, and that of its fit where it is another one."""
    return f"seed {seed}" if fit_seed in (None, seed) else f"seed {seed}, fit seed {fit_seed}"


def _pairs(run: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Seeds of transfers, each with the seeds of its fits; without fit seeds a fit takes the seed of its transfer."""
    fit_seeds = run.get("fit_seeds")
    return [(seed, fit_seed) for seed in run["seeds"] for fit_seed in ([seed] if fit_seeds is None else fit_seeds)]


def _sampled(entry: Mapping[str, Any]) -> bool:
    """Return True if every seed gives another video."""
    return bool(entry["kind"] != "bound" or entry["sampled"])


def _name(cell: Cell) -> str:
    return f"{cell.method} on {cell.case_id}"


@dataclass(frozen=True, slots=True)
class _Told:
    """Entries of keys that depend on the case alone, as canonical JSON, for fits and for samples."""

    fit: dict[str, str]
    sample: dict[str, str]

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> "_Told":
        digests = {name: canonical_json(case["digests"][name]) for name in ("reference", "target")}
        fit = {"reference": digests["reference"], "caption": canonical_json(case["caption"])}
        return cls(fit, {"target": digests["target"], "prompt": canonical_json(case["prompt"])})


def _method_cells(
    backbone: Mapping[str, Any],
    method: str,
    entry: Mapping[str, Any],
    told: Mapping[str, _Told],
    pairs: Iterable[tuple[int, int]],
) -> Iterator[Cell]:
    fit_fields = {field: backbone[field] for field in BACKBONE_FIT_FIELDS}
    identity = {name: entry[name] for name in ("method_id", "version")}
    fit_key_of = key_maker("fit", {**identity, "config": entry["fit_config"], "backbone": fit_fields})
    sample_fields = {field: backbone[field] for field in BACKBONE_SAMPLE_FIELDS}
    sample_key_of = key_maker("sample", {"config": entry["transfer_config"], "backbone": sample_fields})
    fit_keys = dict[tuple[str, ...], str]()
    for seed, fit_seed in pairs:
        number, fit_number = canonical_json(seed), canonical_json(fit_seed)
        for case_id, case in told.items():
            same = (*case.fit.values(), fit_number)
            if same not in fit_keys:
                fit_keys[same] = fit_key_of({**case.fit, "seed": fit_number})
            fit_key = fit_keys[same]
            sample_key = sample_key_of({**case.sample, "seed": number, "fit": f'"{fit_key}"'})
            yield Cell(sample_key, fit_key, method, "method", case_id, seed, fit_seed)


def _bound_key(
    backbone: Mapping[str, Any], name: str, entry: Mapping[str, Any], case_id: str, case: Mapping[str, Any], seed: int
) -> str:
    depends = {
        "bound": name,
        "version": entry["version"],
        "config": entry["transfer_config"],
        "backbone": {field: backbone[field] for field in (*BACKBONE_FIT_FIELDS, *BACKBONE_SAMPLE_FIELDS)},
        "digests": case["digests"],
        "wrong_action": case.get("wrong_action"),  # missing for cases of files
    }
    return key("bound", depends | ({"seed": seed} if entry["sampled"] else {}))


def _submission_key(
    backbone: Mapping[str, Any], name: str, entry: Mapping[str, Any], case_id: str, case: Mapping[str, Any], seed: int
) -> str:
    """Key of a submitted video, or of its absence."""
    video = f"{case_id}/{seed}"
    depends = {
        "submission": name,
        "version": entry["version"],
        "video": video,
        "file": entry["videos"].get(video),
        "format": {field: backbone[field] for field in FORMAT_FIELDS},
        "digests": case["digests"],
        "prompt": case["prompt"],
    }
    return key("submission", depends)


def _grouped(cells: list[Cell]) -> list[Cell]:
    """Cells in the order of first appearance, with cells of one fit moved together and bounds first."""
    groups: dict[tuple[bool, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind != "bound", cell.fit_key or cell.method), []).append(cell)
    return [cell for is_method in (False, True) for group in groups if group[0] is is_method for cell in groups[group]]
