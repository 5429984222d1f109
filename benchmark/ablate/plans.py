"""Plans of ablations, one TOML file each in this folder."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError, unknown
from benchmark.planning.variants import named
from benchmark.suites.puppets import AXES
from metrics import METRICS
from reports.studies.ablation import Ablation, Row

FOLDER = Path(__file__).parent
Value = bool | int | float | str


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Single(_Strict):
    """One row of the table.

    Attributes:
        label: Text for people.
        method: Name in `METHODS`.
        settings: Changed settings by dotted name; "none" stands for no value.
        adapter: Name of a folder in --adapters, whose `refadapter` it runs with; "" for the backbone's own.
    """

    label: str
    method: str
    settings: dict[str, Value] = {}
    adapter: Annotated[str, Field(pattern=r"^[\w-]*$")] = ""


class Curve(_Strict):
    """One setting at several values; the method's own value is added where it is another one.

    Attributes:
        label: Text for people.
        method: Name in `METHODS`.
        setting: Dotted name of the setting.
        values: Values of the setting.
        also: Values of settings that change along with it, by dotted name; as many as `values`.
        relative: True if all values are factors of the method's own.
        over: Horizontal axis: the setting, or the measured seconds of a fit.

    Raises:
        ValueError: If a list in `also` has another length, or factors are shown over the setting.
    """

    label: str
    method: str
    setting: str
    values: Annotated[tuple[int | float, ...], Field(min_length=2, strict=False)]
    also: dict[str, Annotated[tuple[int | float, ...], Field(strict=False)]] = {}
    relative: bool = False
    over: Annotated[str, Field(pattern="^(setting|fit_s)$")] = "setting"

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        for name, values in self.also.items():
            if len(values) != len(self.values):
                raise ValueError(f"also.{name}: expected {len(self.values)} values, got {len(values)}")
        if self.relative and self.over == "setting":
            raise ValueError("relative: factors can only be shown over 'fit_s'")
        return self


class Plan(_Strict):
    """An ablation.

    Attributes:
        title: Heading.
        question: Question that it answers, for people.
        suite: Suite that it runs on by default.
        baseline: Name of the method that all rows are compared with; it always runs.
        axis: Axis of difference by whose terciles the headline is split; "" for none.
        metrics: Names of metrics shown beside the headline.
        rows: Single rows.
        curves: Curves.
    """

    title: str
    question: str
    suite: str
    baseline: str
    axis: str = ""
    metrics: Annotated[tuple[str, ...], Field(strict=False)]
    rows: Annotated[tuple[Single, ...], Field(strict=False)] = ()
    curves: Annotated[tuple[Curve, ...], Field(strict=False)] = ()


def plan_names() -> list[str]:
    """Names of all plans, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_plan(name: str) -> Plan:
    """Read a plan by its name, or from a path that ends in `.toml`.

    Raises:
        UsageError: If there is none, or it is invalid or names what does not exist; the message says what.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in plan_names():
        raise UsageError(unknown(name, plan_names(), "ablation"))
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    methods = [plan.baseline, *(row.method for row in plan.rows), *(curve.method for curve in plan.curves)]
    axes = [plan.axis] if plan.axis else []
    for said, table, what in ((methods, METHODS, "method"), (plan.metrics, METRICS, "metric"), (axes, AXES, "axis")):
        for one in said:
            if one not in table:
                raise UsageError(f"{path}: {unknown(one, list(table), what)}")
    return plan


def ablation_of(plan: Plan) -> Ablation:
    """The rows of a plan with the names of the methods and variants that make them."""
    rows = [Row(f"{plan.baseline} (baseline)", plan.baseline, plan.baseline)]
    for single in plan.rows:
        name = _variant(single.method, single.settings)
        rows.append(Row(single.label, single.method, name, adapter=single.adapter))
    for curve in plan.curves:
        rows.append(Row(f"{curve.label}: as set", curve.method, curve.method, curve.label, None, curve.setting))
        for place, value in enumerate(curve.values):
            numbers = {curve.setting: value} | {name: values[place] for name, values in curve.also.items()}
            times = "x" if curve.relative else ""
            settings = {name: f"x{number}" for name, number in numbers.items()} if curve.relative else numbers
            name, label = _variant(curve.method, settings), f"{curve.label}: {times}{value:g}"
            rows.append(Row(label, curve.method, name, curve.label, float(value), curve.setting))
    over = {curve.label: curve.over for curve in plan.curves}
    return Ablation(plan.title, plan.question, plan.baseline, tuple(rows), plan.metrics, plan.axis, over)


def _variant(method: str, settings: Mapping[str, Value]) -> str:
    return named(method, {name: None if value == "none" else value for name, value in settings.items()})
