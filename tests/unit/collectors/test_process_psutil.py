"""The process tree of macOS and Windows, on fake processes."""

from __future__ import annotations

from collections import namedtuple
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import psutil
import pytest
from pytest_mock import MockerFixture

from mlflow_sysmetrics.collectors.process_psutil import ProcessPsutil
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

Times = namedtuple("Times", ["user", "system", "children_user", "children_system"])


class FakeProcess:
    """A process as psutil shows it; `error` is raised by queries of its resources."""

    def __init__(self, pid: int, parent: int = 1, own: float = 0, born: float = 5) -> None:
        self.pid = pid
        self.parent = parent
        self.own = own
        self.born = born
        self.ended = 0.0
        self.status_is = psutil.STATUS_RUNNING
        self.error: Exception | None = None
        self.uss_error: Exception | None = None
        self.list_error: Exception | None = None
        self.running = True
        self.below: list[FakeProcess] = []

    def create_time(self) -> float:
        return self.born

    def ppid(self) -> int:
        return self.parent

    def is_running(self) -> bool:
        return self.running

    def children(self, *, recursive: bool) -> list[FakeProcess]:
        assert recursive
        if self.list_error:
            raise self.list_error
        return list(self.below)

    def cpu_times(self) -> Times:
        if self.error:
            raise self.error
        return Times(self.own, 0.0, self.ended, 0.0)

    def oneshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    def status(self) -> str:
        return self.status_is

    def num_threads(self) -> int:
        return 2

    def num_fds(self) -> int:
        return 3

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=5e6)

    def memory_full_info(self) -> SimpleNamespace:
        if self.uss_error:
            raise self.uss_error
        return SimpleNamespace(uss=4e6)


class Watched:
    """A collector read every ten seconds, so that it never pauses because of the cost of a reading."""

    def __init__(self) -> None:
        self.one = ProcessPsutil(Host())
        self.now = 0.0

    def tick(self) -> dict[str, float]:
        self.now += 10
        found = {key.removeprefix("process_"): value for key, _, value, _ in self.one.collect(self.now)}
        if "cpu_percentage" in found:
            found["used"] = found["cpu_percentage"] / 10
        return found


@pytest.fixture
def own(mocker: MockerFixture) -> FakeProcess:
    process = FakeProcess(100)
    mocker.patch.object(psutil, "Process", return_value=process)
    return process


def test_values_are_summed_over_the_tree(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100), FakeProcess(102, 101)]
    assert Watched().tick() == {
        "memory_rss_megabytes": 15,
        "memory_uss_megabytes": 12,
        "threads": 6,
        "open_files": 9,
        "children": 2,
    }


def test_cpu_time_is_summed_over_the_tree(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100, own=50)]
    watched = Watched()
    watched.tick()
    own.own, own.below[0].own = 1, 52
    assert watched.tick()["used"] == 3


def test_a_short_lived_child_counts_once(own: FakeProcess) -> None:
    watched = Watched()
    watched.tick()
    own.below = [FakeProcess(101, 100, own=3)]
    assert watched.tick()["used"] == 3
    own.below[0].running = False
    own.below = []
    own.ended = 4
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 0)


def test_a_child_that_ends_between_listings_counts_once(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100, own=3)]
    watched = Watched()
    watched.tick()
    own.below[0].error = psutil.NoSuchProcess(101)
    own.ended = 4
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 0)


def test_a_reused_pid_is_another_child(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100, own=3)]
    watched = Watched()
    watched.tick()
    own.below[0].running = False
    own.below = [FakeProcess(101, 100, own=2, born=9)]
    own.ended = 3
    found = watched.tick()
    assert (found["used"], found["children"]) == (2, 1)


def test_a_child_adopted_elsewhere_has_no_debt(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100, own=3)]
    watched = Watched()
    watched.tick()
    own.below = []
    own.ended = 1
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 0)


@pytest.mark.parametrize(
    "error", [psutil.AccessDenied(101), psutil.ZombieProcess(101), PermissionError(13, "Permission denied")]
)
def test_an_unreadable_child_is_skipped_until_it_can_be_read(own: FakeProcess, error: Exception) -> None:
    own.below = [FakeProcess(101, 100)]
    watched = Watched()
    watched.tick()
    own.below[0].error = error
    found = watched.tick()
    assert (found["children"], found["threads"]) == (0, 2)
    own.below[0].error = None
    own.below[0].own = 7
    assert watched.tick()["used"] == 7


def test_a_child_unreadable_at_first_is_skipped(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100)]
    own.below[0].error = psutil.AccessDenied(101)
    assert Watched().tick()["children"] == 0


def test_a_zombie_holds_nothing(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100)]
    own.below[0].status_is = psutil.STATUS_ZOMBIE
    found = Watched().tick()
    assert (found["children"], found["threads"]) == (0, 2)


def test_a_failed_listing_keeps_known_children(own: FakeProcess) -> None:
    own.below = [FakeProcess(101, 100)]
    watched = Watched()
    watched.tick()
    own.list_error = psutil.AccessDenied(100)
    assert watched.tick()["children"] == 1


def test_children_are_not_listed_at_every_tick(own: FakeProcess) -> None:
    watched = Watched()
    watched.tick()
    own.below = [FakeProcess(101, 100)]
    watched.now -= 9
    assert watched.tick()["children"] == 0
    assert watched.tick()["children"] == 1


def test_uncounted_files_are_a_gap(own: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows counts handles."""
    monkeypatch.delattr(FakeProcess, "num_fds")
    own.uss_error = psutil.AccessDenied(100)
    watched = Watched()
    assert watched.tick().keys() == {"memory_rss_megabytes", "threads", "children"}
    assert watched.one.gaps == ("open files cannot be counted", "private memory cannot be read")


@pytest.mark.parametrize("error", [psutil.AccessDenied(100), PermissionError(13, "Permission denied")])
def test_without_this_process_the_tree_is_unavailable(own: FakeProcess, error: Exception) -> None:
    watched = Watched()
    own.error = error
    with pytest.raises(Unavailable, match=r"psutil\.Process"):
        watched.tick()
    with pytest.raises(Unavailable, match=r"psutil\.Process"):
        Watched()


def test_the_real_process_has_every_value() -> None:
    one = ProcessPsutil(Host())
    found = {sample.key: sample.value for now in (0, 1) for sample in one.collect(now)}
    assert found.keys() <= {metric.name for metric in ProcessPsutil.metrics}
    assert found["process_threads"] >= 1
    assert found["process_memory_rss_megabytes"] > found["process_memory_uss_megabytes"] > 1
