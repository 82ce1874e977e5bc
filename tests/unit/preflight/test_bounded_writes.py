"""Writes to a store that may hang: bounded in time and never out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mlflow_sysmetrics.preflight.status_files.target import BoundedWrites

SHORT = 0.01
LONG = 30.0  # for what takes milliseconds on an idle machine


class Store:
    """Keeps what is written; hangs while it is not `open`."""

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
    """A store that stops hanging when the test ends."""
    made = Store()
    yield made
    made.open.set()


def test_write_returns_after_the_text_is_written(store: Store) -> None:
    writes = BoundedWrites(store.write)
    writes.write("a", "1")
    assert store.written == [("a", "1")]
    writes.write("a", "2")
    assert store.written[1:] == [("a", "2")]


def test_an_error_of_the_store_is_raised_by_write(store: Store) -> None:
    store.failure = PermissionError("no such bucket")
    with pytest.raises(PermissionError, match="no such bucket"):
        BoundedWrites(store.write).write("a", "1")


def test_a_success_clears_an_earlier_failure(store: Store) -> None:
    writes = BoundedWrites(store.write)
    store.failure = PermissionError("no such bucket")
    with pytest.raises(PermissionError):
        writes.write("a", "1")
    store.failure = None
    writes.write("a", "2")
    assert store.written == [("a", "2")]


def test_a_hanging_store_raises_a_timeout(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, timeout=SHORT)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        writes.write("a", "1")


def test_while_a_write_hangs_the_next_has_a_shorter_timeout(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, timeout=0.05, timeout_while_hanging=SHORT)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        writes.write("a", "1")
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        writes.write("a", "2")


def test_the_last_write_has_the_full_timeout(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, timeout=0.05, timeout_while_hanging=SHORT)
    with pytest.raises(TimeoutError):
        writes.write("a", "1")
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        writes.write("a", "2", last=True)


def test_only_the_newest_queued_text_of_a_name_is_written(store: Store) -> None:
    store.open.clear()
    writes = BoundedWrites(store.write, timeout=SHORT, timeout_while_hanging=SHORT)
    with pytest.raises(TimeoutError):
        writes.write("a", "1")
    assert store.taken.acquire(timeout=LONG)  # it hangs in the store now
    for text in "23":
        with pytest.raises(TimeoutError):
            writes.write("a", text)
    store.open.set()
    writes._timeout = LONG
    writes.write("b", "4", last=True)
    assert store.written[0] == ("a", "1")
    assert set(store.written[1:]) == {("a", "3"), ("b", "4")}


def test_a_hanging_store_costs_one_thread(store: Store) -> None:
    store.open.clear()
    before = threading.active_count()
    writes = BoundedWrites(store.write, timeout=SHORT, timeout_while_hanging=SHORT)
    for text in "123":
        with pytest.raises(TimeoutError):
            writes.write("a", text)
    assert threading.active_count() == before + 1
