"""The shared history of a process: what happened since each mark, whoever else began or ended meanwhile."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mlflow_sysmetrics.samples import Kind, Sample
from mlflow_sysmetrics.summary import tick_history
from mlflow_sysmetrics.summary.tick_history import Mark, TickHistory

CPU, MEMORY, ENERGY = (
    "cpu_utilization_percentage",
    "system_memory_usage_percentage",
    "cpu_energy_watt_hours",
)


def tick(memory: float, cpu: float | None = None, energy: float | None = None) -> list[Sample]:
    found = [Sample("other", Kind.GAUGE, 1.0), Sample(MEMORY, Kind.GAUGE, memory)]
    if cpu is not None:
        found.append(Sample(CPU, Kind.RATE, cpu, 10.0))
    if energy is not None:
        found.insert(0, Sample(ENERGY, Kind.COUNTER, energy))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_statistics_since_a_mark_are_those_of_numpy(seed: int) -> None:
    draw = random.Random(seed)
    history = TickHistory()
    marks: dict[Mark, int] = {}
    values: list[float] = []
    history.add(tick(50), 1)
    for _ in range(600):
        what = draw.random()
        if what < 0.05:
            marks[history.begin()] = len(values)
        elif what < 0.07 and len(marks) > 1:
            gone = draw.choice(list(marks))
            del marks[gone]
            history.end([gone])
        value = draw.uniform(1, 100)
        if marks:
            values.append(value)
        history.add(tick(value), 1)
    for mark, since in marks.items():
        memory = history.since(mark).summary().memory
        expected = np.array(values[since:])
        assert memory is not None
        assert memory.mean == pytest.approx(expected.mean(), rel=1e-9)
        assert memory.max == expected.max()
        assert memory.p95 == pytest.approx(np.quantile(expected, 0.95, method="inverted_cdf"), rel=0.02)


def test_levels_count_at_each_tick_and_rates_with_their_span() -> None:
    history = TickHistory()
    history.add(tick(10), 1)
    mark = history.begin()
    for second in range(1, 31):
        history.add(tick(10 + second % 10, cpu=second if second % 10 == 0 else None), 1)
    found = history.since(mark).summary()
    assert found.seconds == 30
    assert found.memory is not None
    assert found.cpu is not None
    assert found.memory.mean == pytest.approx(14.5)
    assert found.cpu.mean == pytest.approx(20)


def test_totals_count_from_the_tick_with_which_a_run_begins() -> None:
    history = TickHistory()
    history.add(tick(10, energy=1000), 1)
    first = history.begin()
    history.add(tick(10, energy=1003), 1)
    second = history.begin()
    history.add(tick(10, energy=1007), 1)
    assert history.since(second).summary().cpu_watt_hours == pytest.approx(2)  # half of it
    assert history.since(first).summary().cpu_watt_hours == pytest.approx(5)


def test_a_pause_without_runs_does_not_count() -> None:
    history = TickHistory()
    history.add(tick(10, energy=0), 1)
    history.end([history.begin()])
    history.add(tick(99, energy=500), 600)
    mark = history.begin()
    history.add(tick(20, energy=501), 1)
    found = history.since(mark).summary()
    assert (found.seconds, found.cpu_watt_hours) == (1, 1)
    assert found.memory is not None
    assert found.memory.max == 20


def test_runs_that_end_leave_no_segments() -> None:
    history = TickHistory()
    first = history.begin()
    for number in range(1000):
        history.add(tick(number % 100), 1)
        mark = history.begin()
        history.add(tick(5), 1)
        history.end([mark])
    assert len(history._segments) <= 3
    memory = history.since(first).summary().memory
    assert memory is not None
    assert memory.max == 99
    history.end([first])
    assert history._segments == []


def test_many_runs_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_history, "_MOST_SEGMENTS", 20)
    history = TickHistory()
    marks = []
    for number in range(100):
        marks.append(history.begin())
        history.add(tick(number), 1 + number % 3)
    assert len(history._segments) <= 21
    for number, mark in enumerate(marks):
        found = history.since(mark).summary()
        assert found.memory is not None
        assert found.memory.max == 99
        assert 0 <= sum(1 + one % 3 for one in range(number, 100)) - found.seconds <= 40
