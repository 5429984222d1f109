"""Published results: what makes one stale, and what is kept with it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.__main__ import COMMANDS
from benchmark.ablate.plans import ablation_of, load_plan, plan_names
from benchmark.bounds.bounds import BOUNDS
from benchmark.curate import replication
from benchmark.curate.replication import frozen
from benchmark.planning.methods import METHODS
from benchmark.publish import __main__ as publish
from benchmark.publish import inputs
from benchmark.publish.__main__ import main
from benchmark.publish.inputs import inputs_of, obstacles_to, stale
from benchmark.publish.products import COMPARED, PRODUCTS, Product
from metrics import METRICS
from reports.analysis.claims import FAMILY, family

STUDIES = {"study", "attention"}
QUICK = Product(("flexiact.puppets.leakage --actions 2",), ("puppets-smoke",), ("i2v",), ("pose",))


def test_every_product_is_made_by_commands_that_exist_and_every_claim_can_be_made() -> None:
    for product in PRODUCTS.values():
        assert {step.split()[0] for step in product.steps} <= {module for module, _ in COMMANDS.values()}
        assert set(product.methods) <= set(METHODS)
    assert {name for pair in family() for name in pair} <= set(COMPARED)
    assert len(COMPARED) <= 12
    for name in plan_names():
        assert {row.method for row in ablation_of(load_plan(name)).rows} >= set(PRODUCTS[name].methods)


def test_what_changed_is_named(tmp_path: Path) -> None:
    assert stale(tmp_path / "none", {}, []) == ["missing"]
    inputs = {"suite a": "1", "metric b": "1", "metric c": "1"}
    (tmp_path / "made.json").write_text(json.dumps({"inputs": inputs, "commands": ["run"]}))
    assert stale(tmp_path, inputs, ["run"]) == []
    assert stale(tmp_path, {"suite a": "2", "metric b": "1", "method d": "1"}, ["run"]) == [
        "changed: suite a", "changed: metric c", "changed: method d",
    ]  # fmt: skip
    many = {f"metric {number}": "1" for number in range(5)}
    assert stale(tmp_path, inputs | many, ["run"]) == ["changed: metric 0, metric 1 and 3 more"]
    assert stale(tmp_path, inputs, ["run --seeds 0-2"]) == ["changed: commands"]
    (tmp_path / "made.json").write_text("[]")
    assert stale(tmp_path, {}, []) == ["no made.json: made before it was kept"]


def test_what_a_command_reads_makes_only_its_own_results_stale(tmp_path: Path, monkeypatch) -> None:
    def read() -> dict[str, dict[str, str]]:
        return {name: {k: v for s in product.steps for k, v in inputs.read_by(s).items()} for name, product in all_of}

    claiming = {name for name, product in PRODUCTS.items() if any(s.startswith("reports.") for s in product.steps)}
    plans, all_of = Path(shutil.copytree(inputs.PLANS, tmp_path / "plans")), list(PRODUCTS.items())
    monkeypatch.setattr(inputs, "PLANS", plans)
    for change, made_by in (
        (lambda: monkeypatch.setattr("benchmark.study.corruptions.VERSION", 99), {"study"}),
        (lambda: monkeypatch.setattr("benchmark.store.schema.rows.FEATURES_VERSION", 99), {*PRODUCTS} - {"attention"}),
        (lambda: monkeypatch.setitem(BOUNDS, "still", replace(BOUNDS["still"], version=99)), {*PRODUCTS} - STUDIES),
        (
            lambda: monkeypatch.setitem(METRICS, "pck", replace(METRICS["pck"], version=99)),
            {*PRODUCTS} - {"attention", "difficulty", "difficulty-pose"},  # which measure the headline at most
        ),
        (lambda: (plans / "refadapter.toml").write_text("another"), {"refadapter"}),
        (lambda: monkeypatch.setattr("reports.analysis.claims.family", lambda: (("a", "b"),)), claiming),
    ):
        before = read()
        change()
        assert {name for name, found in read().items() if found != before[name]} == made_by


def test_memory_and_folders_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my runs").mkdir()
    (tmp_path / "hungry.py").write_text("import sys\nheld = bytearray(int(sys.argv[1]))\nopen(sys.argv[2], 'x')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peaks = []
    for name, size in (("large", 400_000_000), ("small", 1)):
        publish.make(Product((f"hungry {size} {{runs}}/{name}",), ()), tmp_path / name, tmp_path / "my runs", {})
        made = json.loads((tmp_path / name / "made.json").read_text())
        assert made["commands"] == [f"python -m hungry {size} runs/{name}"]
        peaks.append(made["peak_memory_gib_of_a_process"])
    assert peaks[0] > 0.37 > 0.1 > peaks[1]


def test_commands_name_folders_as_seen_from_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "seen.py").write_text("import sys\nopen('seen.txt', 'w').write(' '.join(sys.argv[1:]))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    publish.make(Product(("seen {runs}/a {out}",), ()), tmp_path / "published/b", tmp_path / "runs", {})
    (place,) = (tmp_path / "runs").iterdir()
    assert (tmp_path / "seen.txt").read_text() == f"runs/{place.name}/a published/b"


def test_the_same_inputs_go_on_where_they_were_and_others_begin_anew(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "once.py").write_text("import sys\nopen(sys.argv[1], 'x')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    product, runs, asked = Product(("once {runs}/made",), ()), tmp_path / "runs", {"suite a": "1"}
    publish.make(product, tmp_path / "p", runs, asked)
    with pytest.raises(ValueError, match="ended with 1"):
        publish.make(product, tmp_path / "p", runs, asked)
    publish.make(product, tmp_path / "p", runs, {"suite a": "2"})
    publish.make(Product(("once {runs}/made more",), ()), tmp_path / "p", runs, asked)
    assert len([path for path in runs.glob("p-*/made") if len(path.parent.name) == 14]) == 3


def test_time_and_memory_are_those_of_all_commands_together(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    call = Product(("twice {runs}/made",), ()), tmp_path / "p", tmp_path / "runs", {}
    (tmp_path / "twice.py").write_text(
        "import pathlib, sys, time\ntime.sleep(0.2)\nfile = pathlib.Path(sys.argv[1])\n"
        "sys.exit(not file.exists() and not file.touch())"
    )
    with pytest.raises(ValueError, match="ended with 1"):
        publish.make(*call)
    (spent,) = tmp_path.glob("runs/p-*/spent.txt")
    seconds, kib = map(float, spent.read_text().split())
    assert seconds >= 0.2 and kib > 0
    spent.write_text(f"600 {2**22}\n")  # as if that call had been long and large
    publish.make(*call)
    made = json.loads((tmp_path / "p/made.json").read_text())
    assert 10 <= made["minutes"] < 12 and made["peak_memory_gib_of_a_process"] == 4


def test_a_result_is_made_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "PRODUCTS", {"quick": QUICK})
    asked = ["--make", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main(asked) == 0
    made = json.loads((tmp_path / "quick/made.json").read_text())
    assert made["commands"] == ["python -m flexiact.puppets.leakage --actions 2"]
    assert made["minutes"] >= 0 and made["peak_memory_gib_of_a_process"] > 0
    assert made["inputs"] == inputs_of(QUICK) and "method i2v" in made["inputs"]
    capsys.readouterr()
    assert main(asked) == 0
    assert capsys.readouterr().out.split(maxsplit=1) == ["quick", "up to date\n"]
    monkeypatch.setattr("flexiact.puppets.world.render.RENDERER_VERSION", 99)
    assert main(asked[1:]) == 0
    assert "changed: renderer" in capsys.readouterr().out


def test_a_replication_is_drawn_after_everything_that_claims_are_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    product, drawn = PRODUCTS["puppets-replicate"], frozen()
    monkeypatch.setattr(inputs, "CLAIMED", tmp_path)
    assert ["no claims to repeat" in text for text in obstacles_to(product)] == [True]
    (tmp_path / "claims.csv").touch()
    assert obstacles_to(product) == []
    noted = tmp_path / "claims.toml"
    noted.write_text(FAMILY.read_text() + "# another comment\n")
    monkeypatch.setattr(replication, "family", lambda: family(noted))
    assert frozen() == drawn
    monkeypatch.setattr(replication, "family", lambda: family()[1:])
    assert frozen() != drawn and obstacles_to(PRODUCTS["claims"]) == []
    asked = ["puppets-replicate", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main(asked) == 0 and "was changed after the draw" in capfd.readouterr().out
    assert main([*asked, "--make"]) == 2
    assert "benchmark.curate puppets-replicate" in capfd.readouterr().err and not (tmp_path / "runs").exists()


def test_a_failing_command_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(publish, "PRODUCTS", {"bad": Product(("reports.power {runs}/none",), (), (), ())})
    assert main(["--make", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 2
    assert "ended with 2" in capfd.readouterr().err and not (tmp_path / "bad").exists()
