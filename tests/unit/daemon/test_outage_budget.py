"""One outage costs a program at most one flush timeout."""

from __future__ import annotations

from mlflow_sysmetrics.daemon.delivery.flush import OutageBudget


def test_the_first_wait_leaves_room_for_the_work_around_it() -> None:
    assert OutageBudget().seconds(5) == 4.5


def test_all_waits_of_one_outage_together_stay_below_the_timeout() -> None:
    budget = OutageBudget()
    now = 0.0
    for _ in range(100):
        wait = budget.seconds(5)
        budget.timed_out(now, now + wait)
        now += wait + 60
    assert 4.9 < now - 100 * 60 <= 5


def test_waits_at_the_same_time_count_once() -> None:
    budget = OutageBudget()
    for _ in range(64):
        budget.timed_out(10, 12)
    assert budget.seconds(5) == 1.5


def test_a_delivery_ends_the_outage() -> None:
    budget = OutageBudget()
    budget.timed_out(0, 4.5)
    budget.reset()
    assert budget.seconds(5) == 4.5
