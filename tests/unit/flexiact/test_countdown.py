"""Steps are counted where they are taken, and nothing of the counting stays."""

import io
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flexiact.terminal import progress as countdown
from flexiact.terminal.progress import counted, in_words, steps_shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(countdown, "LINE_EVERY_S", 0.0)
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(countdown, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    network, stream = nn.Linear(1, 1), io.StringIO()
    with steps_shown(network, 20, "fit", stream):
        for _ in range(3):
            network(torch.zeros(1))
    assert stream.getvalue().splitlines() == [
        "fit: step 1 of 20, about 3 min 10 s left",
        "fit: step 2 of 20, about 3 min 00 s left",
        "fit: step 3 of 20, about 2 min 50 s left",
    ]


def test_items_are_counted_from_where_they_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(countdown, "LINE_EVERY_S", 0.0)
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(countdown, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    stream = io.StringIO()
    assert list(counted(range(18, 20), 20, "train", first=18, stream=stream)) == [18, 19]
    assert stream.getvalue().splitlines() == [
        "train: step 19 of 20, about 10 s left",
        "train: step 20 of 20, about 0.0 s left",
    ]


def test_short_work_says_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with steps_shown(network := nn.Linear(1, 1), 2, "transfer", stream):
            network(torch.zeros(1))
        assert not stream.getvalue().strip()


def test_no_trace_is_left() -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(RuntimeError), steps_shown(network, 2, "fit", io.StringIO()):
        raise RuntimeError
    assert not network._forward_hooks


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
