"""The ledger of CPU time: every second once. Times are in seconds; `ended` is that of ended children."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.collectors.processes.ledger import CpuLedger


@pytest.fixture
def ledger() -> CpuLedger:
    return CpuLedger()


def test_what_was_used_before_the_first_look_does_not_count(ledger: CpuLedger) -> None:
    root = ledger.open(None, 50, 20, born=False)
    ledger.spend(root, 51)
    ledger.settle(root, 20)
    assert ledger.take() == 1
    assert ledger.take() == 0


def test_a_child_born_meanwhile_counts_whole(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.open(root, 2, 1, born=True)
    assert ledger.take() == 3


def test_a_child_that_nobody_saw_arrives_through_its_parent(ledger: CpuLedger) -> None:
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


def test_a_primed_child_that_ends_counts_what_it_used_since(ledger: CpuLedger) -> None:
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


def test_a_child_that_reaps_itself_does_not_hold_back_others_for_long(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.close(ledger.open(root, 10, 0, born=False))
    ledger.settle(root, 0)
    ledger.settle(root, 0)
    ledger.settle(root, 5)
    assert ledger.take() == pytest.approx(5, abs=0.021)


def test_a_later_debt_is_not_forgotten_with_an_earlier_one(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    autoreaped, reaped = (ledger.open(root, 10, 0, born=False) for _ in range(2))
    ledger.close(autoreaped)
    ledger.settle(root, 0)
    ledger.close(reaped)
    ledger.settle(root, 0)
    ledger.settle(root, 10)
    assert ledger.take() == 0


def test_the_debt_of_one_parent_is_not_paid_by_another(ledger: CpuLedger) -> None:
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


def test_debts_go_to_the_grandparent_with_the_parent(ledger: CpuLedger) -> None:
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


def test_a_child_that_leaves_the_tree_owes_nothing(ledger: CpuLedger) -> None:
    root = ledger.open(None, 0, 0, born=False)
    ledger.release(ledger.open(root, 10, 0, born=True))
    ledger.settle(root, 2)
    assert ledger.take() == 12


def test_counters_that_go_back_count_nothing_and_count_on_from_their_highest(ledger: CpuLedger) -> None:
    root = ledger.open(None, 10, 10, born=False)
    ledger.spend(root, 4)
    ledger.settle(root, 4)
    assert ledger.take() == 0
    ledger.spend(root, 11)
    ledger.settle(root, 12)
    assert ledger.take() == 3


def test_rounding_down_does_not_add_up_over_a_thousand_children(ledger: CpuLedger) -> None:
    """The parent's counter shows whole ticks of 10 ms, the child's clock is exact."""
    root = ledger.open(None, 0, 0, born=False)
    used = 0.0
    for _ in range(1000):
        child = ledger.open(root, 0.0137, 0, born=True)
        used += 0.0137
        ledger.close(child)
        ledger.settle(root, int(used * 100 + 1e-9) / 100)
        ledger.settle(root, int(used * 100 + 1e-9) / 100)
    assert ledger.take() == pytest.approx(used, abs=0.021)
