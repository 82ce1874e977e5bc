"""The ledger of CPU time counts every second once.

Times are in seconds; `ended` is the time of ended children.
"""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.collectors.processes.ledger import CpuLedger


@pytest.fixture
def ledger() -> CpuLedger:
    return CpuLedger()


def test_time_before_the_first_reading_does_not_count(ledger: CpuLedger) -> None:
    root = ledger.open(None, 50, 20, born=False)
    ledger.spend(root, 51)
    ledger.settle(root, 20)
    assert ledger.take() == 1
    assert ledger.take() == 0


def test_all_time_of_a_new_child_counts(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.open(root, 2, 1, born=True)
    assert ledger.take() == 3


def test_an_unseen_child_counts_through_its_parent(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 5, born=False)
    ledger.settle(root, 7)
    assert ledger.take() == 2


def test_a_child_that_ends_counts_once(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    child = ledger.open(root, 3, 0, born=True)
    ledger.settle(root, 0)
    ledger.close(child)
    ledger.settle(root, 3.5)
    assert ledger.take() == 3.5


def test_a_primed_child_counts_only_time_since_priming(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    child = ledger.open(root, 100, 40, born=False)
    ledger.spend(child, 101)
    ledger.close(child)
    ledger.settle(root, 142)
    assert ledger.take() == 2


def test_a_child_reaped_after_its_parent_was_read_counts_once(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    child = ledger.open(root, 3, 0, born=True)
    ledger.close(child)
    ledger.settle(root, 0)
    ledger.settle(root, 3)
    assert ledger.take() == 3


def test_an_autoreaped_child_hides_later_children_only_briefly(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.close(ledger.open(root, 10, 0, born=False))
    ledger.settle(root, 0)
    ledger.settle(root, 0)
    ledger.settle(root, 5)
    assert ledger.take() == pytest.approx(5, abs=0.021)


def test_forgetting_an_earlier_debt_keeps_a_later_one(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    autoreaped, reaped = (ledger.open(root, 10, 0, born=False) for _ in range(2))
    ledger.close(autoreaped)
    ledger.settle(root, 0)
    ledger.close(reaped)
    ledger.settle(root, 0)
    ledger.settle(root, 10)
    assert ledger.take() == 0


def test_the_debt_of_one_parent_does_not_reduce_that_of_another(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    parent = ledger.open(root, 0, 0, born=False)
    ledger.close(ledger.open(parent, 10, 0, born=False))
    ledger.settle(root, 4)
    assert ledger.take() == 4


def test_a_parent_and_its_child_that_end_together_count_once(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    parent = ledger.open(root, 1, 0, born=True)
    child = ledger.open(parent, 2, 0, born=True)
    ledger.close(parent)
    ledger.close(child)
    ledger.settle(root, 3)
    assert ledger.take() == 3


def test_a_closing_parent_passes_its_debts_to_the_grandparent(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    parent = ledger.open(root, 1, 0, born=True)
    ledger.close(ledger.open(parent, 2, 0, born=True))
    ledger.close(parent)
    ledger.settle(root, 3)
    assert ledger.take() == 3


def test_the_root_may_close_without_an_heir(ledger: CpuLedger) -> None:
    root = ledger.open(None, 1, 0, born=False)
    ledger.close(root)
    assert root.closed


def test_a_child_that_leaves_the_tree_has_no_debt(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.release(ledger.open(root, 10, 0, born=True))
    ledger.settle(root, 2)
    assert ledger.take() == 12


def test_decreasing_counters_count_again_beyond_their_maximum(ledger: CpuLedger) -> None:
    root = ledger.open(None, 10, 10, born=False)
    ledger.spend(root, 4)
    ledger.settle(root, 4)
    assert ledger.take() == 0
    ledger.spend(root, 11)
    ledger.settle(root, 12)
    assert ledger.take() == 3


def test_rounding_does_not_accumulate_over_a_thousand_children(ledger: CpuLedger) -> None:
    """The counter of the parent has ticks of 10 ms; the clock of the child is exact."""
    root = ledger.open(None, 0, 0, born=False)
    used = 0.0
    for _ in range(1000):
        child = ledger.open(root, 0.0137, 0, born=True)
        used += 0.0137
        ledger.close(child)
        ledger.settle(root, int(used * 100 + 1e-9) / 100)
        ledger.settle(root, int(used * 100 + 1e-9) / 100)
    assert ledger.take() == pytest.approx(used, abs=0.021)


def test_a_leap_beyond_what_the_cpus_deliver_does_not_count(ledger: CpuLedger) -> None:
    root = ledger.open(None, 10, 0, born=False)
    for now, own in enumerate((11, 1.8e17, 12, 0, 13)):
        ledger.begin(now)
        ledger.spend(root, own)
    assert ledger.take() == 3


def test_a_leap_that_is_confirmed_counts_from_there(ledger: CpuLedger) -> None:
    root = ledger.open(None, 10, 0, born=False)
    for now, own in enumerate((11, 1e9, 1e9 + 1, 1e9 + 3)):
        ledger.begin(now)
        ledger.spend(root, own)
    assert ledger.take() == 1 + 1 + 2


def test_garbage_in_the_time_of_ended_children_does_not_count(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 5, born=False)
    ledger.settle(root, 1.8e17)
    ledger.settle(root, 7)
    assert ledger.take() == 2
