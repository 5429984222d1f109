"""Speed: statistics on a clock of our own, and what is stored, read, drawn and said of them."""

import itertools
import json
import math
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.speed import command as speed
from benchmark.speed import scale
from benchmark.speed.attention import AttentionShape, attention
from benchmark.speed.comparison import clock_name, device_clock, measure
from benchmark.speed.timing import BUDGET_S, ROUNDS, Spread, Variant, interleaved, paired_ratios, spread, timed
from benchmark.stages.session import RunRequest, run_session
from flexiact.backbone.backbone import Backbone
from reports.speed.times import SCHEMA_VERSION, load_speed, write_page
from tests.support.harness import CASES, small_perception

CPU = torch.device("cpu")
SHAPE = AttentionShape(heads=2, width=8, text=3, video=11, extra=4, batch=2, dtype=torch.float32)
SECONDS = st.floats(1e-6, 1e3)


class FakeClock:
    """Stands still but for what `takes` makes pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def takes(self, name: str, *seconds: float) -> Variant:
        """A variant that takes these seconds in turn, the last ones again and again."""
        left = list(seconds)

        def run() -> None:
            self.ran.append(name)
            self.now_s += left.pop(0) if len(left) > 1 else left[0]

        return Variant(run)


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(3, 2, 4)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.25, 1.75)
    assert spread([7]) == Spread(7, 7, 7)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9))
def test_ratios_lie_between_the_least_and_the_greatest(rounds: list[tuple[float, float]]) -> None:
    one, other = zip(*rounds, strict=True)
    ratios = [a / b for a, b in rounds]
    found = paired_ratios(one, other)
    ends = [min(ratios), found.low, found.median, found.high, max(ratios)]
    assert all(one <= other * (1 + 1e-9) for one, other in itertools.pairwise(ends))


def test_a_machine_that_slows_down_does_not_change_the_ratios() -> None:
    clock, drift = FakeClock(), (1.0, 3.0, 10.0, 4.0)
    variants = {"a": clock.takes("a", *drift), "b": clock.takes("b", *(2 * d for d in drift))}
    seconds = interleaved(variants, clock, 4)
    assert paired_ratios(seconds["b"], seconds["a"]) == Spread(2, 2, 2)
    assert spread(seconds["a"]).high > 2 * spread(seconds["a"]).low


def test_only_numbers_of_the_same_rounds_are_divided() -> None:
    with pytest.raises(ValueError):
        paired_ratios([1.0, 2.0], [1.0])


def test_every_round_runs_all_and_begins_one_further_on() -> None:
    clock = FakeClock()
    seconds = interleaved({name: clock.takes(name, 1.0) for name in "abc"}, clock, 4)
    assert "".join(clock.ran) == "abc" + "bca" + "cab" + "abc"
    assert seconds == {name: [1.0] * 4 for name in "abc"}


def test_what_is_around_a_run_is_not_timed() -> None:
    clock = FakeClock()

    @contextmanager
    def slow():
        clock.now_s += 100
        yield
        clock.now_s += 100

    variant = replace(clock.takes("a", 2.0), around=slow)
    assert interleaved({"a": variant}, clock, 3) == {"a": [2.0] * 3}


@pytest.mark.parametrize(
    ("seconds", "repeats", "rounds", "calls"),
    [
        (BUDGET_S / 20, None, 10, 11),  # two variants: ten rounds fit, after one of warming up
        (BUDGET_S / 20, 4, 4, 5),
        (1e-6, None, ROUNDS[1], ROUNDS[1] + 1),
        (BUDGET_S / 2, None, ROUNDS[0], ROUNDS[0] + 1),
        (BUDGET_S, None, ROUNDS[0], ROUNDS[0] - 1),  # too slow to warm up: what has run is the first round
        (BUDGET_S, 1, 1, 0),
    ],
)
def test_rounds_fit_into_the_budget(seconds: float, repeats: int | None, rounds: int, calls: int) -> None:
    clock = FakeClock()
    variants = {name: clock.takes(name, seconds) for name in "ab"}
    found = timed(variants, clock, {"a": seconds, "b": seconds}, repeats)
    assert {name: len(times) for name, times in found.items()} == {"a": rounds, "b": rounds}
    assert clock.ran.count("a") == clock.ran.count("b") == calls
    assert found["a"] == pytest.approx([seconds] * rounds)


def test_warming_up_is_left_out() -> None:
    clock = FakeClock()
    found = timed({"a": clock.takes("a", 9.0, 1.0)}, clock, {"a": 15.0}, 3)
    assert found == {"a": [1.0] * 3}
    assert timed({}, clock, {}) == {}


@pytest.mark.parametrize(("threads", "name"), [(1, "processor time"), (2, "wall time")])
def test_with_one_thread_waiting_for_the_machine_is_not_counted(threads: int, name: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        clock = device_clock(CPU)
        start = clock()
        time.sleep(0.2)
        assert (clock() - start < 0.1) == (threads == 1)
        assert clock_name(CPU) == name
    finally:
        torch.set_num_threads(before)


def stored_of_attention() -> dict:
    origin = {"threads": 1, "clock": "wall time", "python": "3.11.0"}
    origin |= {"packages": dict.fromkeys(("torch", "diffusers", "peft"), "1.0")}
    found = {
        "command": "python -m benchmark.speed",
        "code": {"commit": None, "dirty": None},
        **measure(attention(SHAPE, CPU), CPU, repeats=3),
    }
    found["left_out"] = {"another way": "out of memory"}
    words = {"schema_version": SCHEMA_VERSION, "device": "A Card (R)", "model": "a tiny backbone"}
    return words | {"environment": origin, "run": None, "comparisons": {"attention": found}}


def test_what_is_stored_is_read_back_and_shown(tmp_path: Path) -> None:
    stored, path = stored_of_attention(), tmp_path / "deep" / "card.json"
    speed.write_json(stored, path)
    assert load_speed(path) == stored
    assert all("[" not in line or "]" in line for line in path.read_text().splitlines() if "rounds_s" in line)
    text = write_page(path)
    assert text == path.with_suffix(".md").read_text()
    assert text.splitlines()[0] == "# Speed on A Card (R): a tiny backbone"
    assert "Left out: another way (out of memory)." in text and "(card.png)" in text
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    drawn = path.with_suffix(".png").read_bytes()
    write_page(path)
    assert path.with_suffix(".png").read_bytes() == drawn


def test_whole_runs_of_all_devices_stand_beside_each_other(tmp_path: Path) -> None:
    run = {"suite": "puppets", "backbone": "puppets", "threads": 2, "methods": 1, "videos": 3, "fits": 1, "fit_s": 9.0}
    for name, speed_of in (("cpu", 0.25), ("gpu", 4.0)):
        found = run | {"device": name, "transfer_s": 1.0, "videos_per_s": speed_of}
        speed.write_json(stored_of_attention() | {"run": found}, tmp_path / f"{name}.json")
    text = write_page(tmp_path / "cpu.json")
    assert "| cpu, 2 threads |" in text and "| gpu, 2 threads |" in text and "0.250" in text and "4.000" in text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stored: stored.update(schema_version=99), "schema_version 99"),
        (lambda stored: stored.pop("model"), "model: missing"),
        (lambda stored: stored["comparisons"]["attention"].pop("rivals"), "attention.rivals: missing"),
        (lambda stored: stored["comparisons"]["attention"]["variants"]["no bias"]["seconds"].pop("low"), "no bias.low"),
    ],
)
def test_a_damaged_file_is_named(damage, said: str, tmp_path: Path) -> None:
    stored = stored_of_attention()
    damage(stored)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=f"card.json.*{said}"):
        load_speed(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="card.json: not readable"):
        load_speed(path)


def test_a_number_that_is_not_finite_is_not_stored(tmp_path: Path) -> None:
    stored = stored_of_attention()
    stored["comparisons"]["attention"]["variants"]["no bias"]["seconds"]["low"] = math.nan
    with pytest.raises(ValueError):
        speed.write_json(stored, tmp_path / "card.json")


def test_the_command_adds_to_its_file_and_names_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "set_threads", lambda threads: None)  # of the process, which tests share
    calls = [["--device", "cpu", "--repeats", "2", "--out", str(tmp_path), "--only", name] for name in ("step", "fit")]
    assert [speed.main(call) for call in calls] == [0, 0]
    (path,) = tmp_path.glob("*.json")
    assert path.stem == speed.slug(load_speed(path)["device"])
    assert list(load_speed(path)["comparisons"]) == ["step", "fit"]
    text = path.read_text()
    assert str(tmp_path) not in text and not re.search(r"(?<![\w.])/[a-z]+/", text)
    printed = capsys.readouterr().out
    assert printed.startswith("# Speed on ") and "not the 5B model" in printed.splitlines()[0]
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".md", ".png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "attentoin"], "unknown comparison 'attentoin' \\(did you mean 'attention'"),
        (["--repeats", "0"], "repeats: expected a number above 0"),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(arguments, said, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1


def test_videos_per_second_are_those_of_the_samples(backbone: Backbone, tmp_path: Path) -> None:
    request = RunRequest("small", CASES, ("i2v",), (0,), ("pck",), tmp_path / "run")
    run_session(request, backbone, small_perception(), {"device": "A Card (R)", "threads": 2})
    found = speed.whole_run(tmp_path / "run")
    assert (found["device"], found["threads"], found["videos"], found["methods"]) == ("A Card (R)", 2, 2, 1)
    assert found["videos_per_s"] == pytest.approx(2 / (found["fit_s"] + found["transfer_s"]))
    description = tmp_path / "run" / "run.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"provenance": {}}))
    with pytest.raises(ValueError, match="does not say which device"):
        speed.whole_run(tmp_path / "run")


def test_a_made_up_run_is_one_that_a_session_finds_made_and_measured(tmp_path: Path) -> None:
    assert 30 < scale.kept(40, tmp_path / "run") == scale.gone_on(tmp_path / "run") < 60
    assert scale.gone_over("benchmark.verify", tmp_path / "run") < 60
    records = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("records/*/*.json")]
    (key,) = (row["key"] for row in records if (row["method"], row["seed"]) == ("still", 0))
    (tmp_path / "run" / "scores" / key[:2] / f"{key}.json").unlink()
    with pytest.raises(AssertionError, match="was missing"):
        scale.gone_on(tmp_path / "run")
