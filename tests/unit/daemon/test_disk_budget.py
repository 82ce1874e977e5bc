"""How long a slow disk may delay the sampler in total."""

from __future__ import annotations

import pytest

from fakes import FakeClock
from mlflow_sysmetrics.daemon.journal.thread import DiskBudget, JournalThread, _Request


class Sampler:
    """Writes the points of some runs to a disk at each tick."""

    def __init__(self, runs: int, disk_seconds: float) -> None:
        self.clock = FakeClock()
        self.budget = DiskBudget(self.clock)
        self.runs, self.disk_seconds = runs, disk_seconds

    def tick(self, interval: float = 1.0) -> float:
        """Returns how long the tick has waited."""
        began = self.clock.monotonic()
        for _ in range(self.runs):
            if not self.budget.is_used_up:
                since = self.clock.monotonic()
                self.clock.move(min(self.disk_seconds, self.budget.left))
                self.budget.waited(since)
        waited = self.clock.monotonic() - began
        self.clock.move(max(interval - waited, 0.0))
        return waited


def test_a_tick_waits_a_second_for_all_its_runs_together() -> None:
    assert round(Sampler(runs=20, disk_seconds=0.5).tick(), 3) == 1.0


def test_a_slow_disk_takes_a_tenth_of_the_time_overall() -> None:
    sampler = Sampler(runs=20, disk_seconds=0.5)
    assert sum(sampler.tick() for _ in range(100)) <= 11


def test_a_fast_disk_is_always_waited_for() -> None:
    sampler = Sampler(runs=20, disk_seconds=0.001)
    assert [round(sampler.tick(), 3) for _ in range(100)] == [0.02] * 100


def test_a_disk_that_was_busy_once_is_not_slow() -> None:
    sampler = Sampler(runs=1, disk_seconds=5)
    sampler.tick()
    sampler.clock.move(60)
    assert sampler.budget.slow_seconds == 0


def test_a_disk_that_uses_up_the_budget_again_counts_as_slow_since_the_first_time() -> None:
    sampler = Sampler(runs=20, disk_seconds=0.5)
    for _ in range(12):
        sampler.tick()
    assert 10 <= sampler.budget.slow_seconds <= 12


def test_a_disk_is_no_longer_slow_after_two_fast_minutes() -> None:
    sampler = Sampler(runs=20, disk_seconds=0.5)
    for _ in range(12):
        sampler.tick()
    sampler.disk_seconds = 0.001
    for _ in range(120):
        sampler.tick()
    assert sampler.budget.slow_seconds == 0


@pytest.mark.parametrize(
    ("began_at", "ended_at", "delay", "charged"),
    [
        (None, None, 0.0, 0.0),  # the thread did not get to it
        (101.0, 101.1, 0.0, 0.1),  # late, but the disk answered at once
        (100.0, None, 0.0, 3.0),  # the disk does not answer
        (100.3, 101.2, 0.3, 0.0),  # each step takes a third of a second: the machine is busy
        (100.001, 101.5, 0.001, 1.489),  # a slow disk on an idle machine
    ],
)
def test_a_busy_machine_is_not_charged_to_the_disk(
    began_at: float | None, ended_at: float | None, delay: float, charged: float
) -> None:
    thread = JournalThread(FakeClock())
    thread._delay = delay
    request = _Request(lambda: None, 100.0, began_at, ended_at)
    assert thread._seconds_of_disk(request, 103.0) == pytest.approx(charged)
