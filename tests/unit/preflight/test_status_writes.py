"""Writes into a store that may hang: waited for only so long, and never out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mlflow_sysmetrics.runtime.bounded_calls import BoundedWrites

NO_PATIENCE = 0.01
SOON = 30.0  # longest wait of a test for what comes at once on an idle machine


class Store:
    """Keeps what is written; hangs while its door is closed."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.taken = threading.Semaphore(0)
        self.failure: Exception | None = None

    def write(self, name: str, text: str) -> None:
        self.taken.release()
        self.open.wait()
        if self.failure is not None:
            raise self.failure
        self.written.append((name, text))


@pytest.fixture
def store() -> Iterator[Store]:
    """A store, whose door is open again when the test ends."""
    made = Store()
    yield made
    made.open.set()


def test_a_write_has_happened_when_it_returns(store: Store) -> None:
    writes = BoundedWrites(store.write)
    writes.write("a", "1")
    assert store.written == [("a", "1")]
    writes.write("a", "2")
    assert store.written[1:] == [("a", "2")]


def test_what_the_store_raises_is_raised_where_it_was_asked_for(store: Store) -> None:
    store.failure = PermissionError("no such bucket")
    with pytest.raises(PermissionError, match="no such bucket"):
        BoundedWrites(store.write).write("a", "1")


def test_a_failure_is_forgotten_with_the_next_success(store: Store) -> None:
    writes = BoundedWrites(store.write)
    store.failure = PermissionError("no such bucket")
    with pytest.raises(PermissionError):
        writes.write("a", "1")
    store.failure = None
    writes.write("a", "2")
    assert store.written == [("a", "2")]


def test_a_store_that_hangs_is_not_waited_for(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, patience_seconds=NO_PATIENCE)
    with pytest.raises(TimeoutError, match=r"not been taken within 0\.01 s"):
        writes.write("a", "1")


def test_after_a_write_that_hangs_the_next_is_waited_for_less(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, patience_seconds=0.05, glance_seconds=NO_PATIENCE)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        writes.write("a", "1")
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        writes.write("a", "2")


def test_the_last_write_is_waited_for_with_all_patience(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, patience_seconds=0.05, glance_seconds=NO_PATIENCE)
    with pytest.raises(TimeoutError):
        writes.write("a", "1")
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        writes.write("a", "2", last=True)


def test_of_what_waits_for_a_store_only_the_newest_is_written(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, patience_seconds=NO_PATIENCE, glance_seconds=NO_PATIENCE)
    with pytest.raises(TimeoutError):
        writes.write("a", "1")
    assert store.taken.acquire(timeout=SOON)  # it hangs in the store now
    for text in "23":
        with pytest.raises(TimeoutError):
            writes.write("a", text)
    store.open.set()
    writes._patience_seconds = SOON
    writes.write("b", "4", last=True)
    assert store.written[0] == ("a", "1")
    assert set(store.written[1:]) == {("a", "3"), ("b", "4")}


def test_a_store_that_hangs_costs_one_thread(store: Store) -> None:
    store.open.clear()
    before = threading.active_count()
    writes = BoundedWrites(store.write, patience_seconds=NO_PATIENCE, glance_seconds=NO_PATIENCE)
    for text in "123":
        with pytest.raises(TimeoutError):
            writes.write("a", text)
    assert threading.active_count() == before + 1
