"""The process tree of Linux, on /proc trees that the test writes."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from mlflow_sysmetrics.collectors.process_linux import ProcessLinux
from mlflow_sysmetrics.collectors.processes import births, member, uss
from mlflow_sysmetrics.collectors.processes import tree as process_tree
from mlflow_sysmetrics.collectors.processes.stat import parse_process_stat
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from watching import eventually

OWN = 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def stat(
    pid: int,
    parent: int,
    *,
    own: int = 0,
    ended: int = 0,
    start: int = 7,
    threads: int = 1,
    pages: int = 10,
    state: str = "S",
    command: str = "python",
) -> str:
    """Returns a stat; times in ticks of 10 ms."""
    return (
        f"{pid} ({command}) {state} {parent} 1 1 0 -1 4194304 1 0 0 0 {own} 0 {ended} 0 20 0 "
        f"{threads} 0 {start} 4096 {pages} 18446744073709551615 1 1\n"
    )


class Proc:
    """A /proc that tests write.

    Attributes:
        clocks: CPU time by id, in seconds; empty on a host without CPU clocks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.clocks: dict[int, float] = {}
        self.proc.mkdir()
        self.put(OWN, 1)
        self.last_id(OWN)

    def last_id(self, pid: object) -> None:
        (self.proc / "loadavg").write_text(f"0.01 0.03 0.19 1/83 {pid}\n")

    def put(
        self, pid: int, parent: int, *, files: int = 3, private: int | None = 4, **fields: object
    ) -> None:
        """Writes a process; id OWN is self, whose open files include the one used to list them."""
        directory = self.proc / ("self" if pid == OWN else str(pid))
        (directory / "fd").mkdir(parents=True, exist_ok=True)
        for number in range(files + (pid == OWN)):
            (directory / "fd" / str(number)).touch()
        (directory / "stat").write_text(stat(pid, parent, **fields))  # type: ignore[arg-type]
        if private is not None:
            (directory / "smaps_rollup").write_text(
                f"0-1 ---p 0 00:00 0 [rollup]\nRss:  9 kB\nPrivate_Clean:  {private} kB\nPrivate_Dirty:  0 kB\n"
            )
        if pid != OWN:
            self.last_id(pid)

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))
        self.clocks.pop(pid, None)

    def host(self) -> Host:
        def seconds(pid: int) -> float:
            if pid not in self.clocks:
                raise OSError(22, "Invalid argument")
            return self.clocks[pid]

        return Host(root=self.root, process_seconds=seconds)


class Watched:
    """A collector read every ten seconds, so that it never pauses because of the cost of a reading."""

    def __init__(self, proc: Proc) -> None:
        self.one = ProcessLinux(proc.host())
        self.now = 0.0

    def tick(self) -> dict[str, float]:
        self.now += 10
        found = {key.removeprefix("process_"): value for key, _, value, _ in self.one.collect(self.now)}
        if "cpu_percentage" in found:
            found["used"] = found["cpu_percentage"] / 10
        return found


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


with_and_without_clocks = pytest.mark.parametrize("clocks", [True, False], ids=["clocks", "no clocks"])


def test_a_command_may_contain_parentheses_spaces_and_line_breaks() -> None:
    found = parse_process_stat(stat(42, 7, command="a) R 1 (b\n) Z 9").encode())
    assert (found.pid, found.parent, found.start, found.rss) == (42, 7, 7, 10 * PAGE)


def test_times_are_in_seconds() -> None:
    found = parse_process_stat(stat(42, 7, own=250, ended=30).encode())
    assert (found.own, found.ended) == (2.5, 0.3)


@pytest.mark.parametrize(("state", "threads", "alive"), [("Z", 1, False), ("X", 1, False), ("Z", 2, True)])
def test_a_process_is_alive_while_one_of_its_threads_is(state: str, threads: int, alive: bool) -> None:
    assert parse_process_stat(stat(42, 7, state=state, threads=threads).encode()).alive is alive


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "42 (python",
        stat(42, 7)[:60],
        stat(42, 7)[: stat(42, 7).index("4096") + 6],
        stat(42, 7, own=-1),
        stat(42, 7, own=10**400),
        stat(42, 7).replace("20 0", "x 0").replace(" 7 4096", " x 4096"),
    ],
)
def test_an_invalid_stat_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"stat of a process|invalid literal"):
        parse_process_stat(text.encode())


def test_private_memory_is_clean_dirty_and_huge_pages() -> None:
    text = b"Rss: 9 kB\nPrivate_Clean:  1 kB\nPrivate_Dirty:   2 kB\nPrivate_Hugetlb:   4 kB\nPss: 9 kB\n"
    assert uss.parse_smaps_rollup(text) == 7 * 1024


def test_a_truncated_rollup_is_rejected() -> None:
    with pytest.raises(ValueError, match="smaps_rollup"):
        uss.parse_smaps_rollup(b"Private_Clean:  1 kB\nPrivate_Dir")


def test_values_are_summed_over_the_tree(proc: Proc) -> None:
    proc.put(OWN, 1, threads=4, pages=1000, files=8, private=500)
    proc.put(101, OWN, threads=2, pages=100, files=5, private=50)
    proc.put(102, 101)
    proc.put(103, 1)  # not ours
    assert Watched(proc).tick() == {
        "memory_rss_megabytes": 1110 * PAGE / 1e6,
        "memory_uss_megabytes": 554 * 1024 / 1e6,
        "threads": 7,
        "open_files": 16,
        "children": 2,
    }


@with_and_without_clocks
def test_cpu_time_is_summed_over_the_tree(proc: Proc, clocks: bool) -> None:
    proc.put(101, OWN)
    if clocks:
        proc.clocks = {OWN: 0.0, 101: 0.0}
    watched = Watched(proc)
    assert "used" not in watched.tick()
    proc.put(OWN, 1, own=100)
    proc.put(101, OWN, own=200)
    if clocks:
        proc.clocks = {OWN: 1.0, 101: 2.0}
    assert watched.tick()["used"] == pytest.approx(3)


@with_and_without_clocks
def test_a_short_lived_child_counts_once(proc: Proc, clocks: bool) -> None:
    if clocks:
        proc.clocks = {OWN: 0.0}
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN, own=300)
    if clocks:
        proc.clocks[101] = 3.0
    found = watched.tick()
    assert (found["used"], found["children"]) == (3, 1)
    proc.put(OWN, 1, ended=400)
    proc.end(101)
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 0)


@with_and_without_clocks
def test_a_reused_pid_is_another_child(proc: Proc, clocks: bool) -> None:
    proc.put(101, OWN, own=300)
    if clocks:
        proc.clocks = {OWN: 0.0, 101: 3.0}
    watched = Watched(proc)
    watched.tick()
    proc.put(OWN, 1, ended=300)
    proc.put(101, OWN, own=100, start=900)
    if clocks:
        proc.clocks[101] = 1.0
    assert watched.tick()["used"] == 0
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 1)


def test_a_pid_whose_clock_decreases_is_another_child(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "_SECONDS_PER_TICK", -1)  # one stat per tick
    for pid in (101, 102):
        proc.put(pid, OWN)
    proc.clocks = {OWN: 0.0, 101: 0.0, 102: 3.0}
    watched = Watched(proc)
    watched.tick()
    watched.tick()
    proc.put(OWN, 1, ended=300)
    proc.put(102, OWN, start=900)
    proc.clocks[102] = 1.0
    assert watched.tick()["used"] == 0
    found = watched.tick()
    assert (found["used"], found["children"]) == (1, 2)


def test_a_reused_pid_is_detected_by_its_start_time(proc: Proc) -> None:
    proc.put(101, OWN)
    proc.clocks = {OWN: 0.0, 101: 0.0}
    watched = Watched(proc)
    watched.tick()
    proc.put(101, 1, start=900)
    assert watched.tick()["children"] == 0


@with_and_without_clocks
def test_a_child_leaves_the_tree_when_its_parent_ends(proc: Proc, clocks: bool) -> None:
    proc.put(101, OWN)
    proc.put(102, 101)
    proc.put(103, 102)
    if clocks:
        proc.clocks = dict.fromkeys((OWN, 101, 102, 103), 0.0)
    watched = Watched(proc)
    assert watched.tick()["children"] == 3
    proc.end(101)
    proc.put(102, 1)
    assert watched.tick()["children"] == 0


def test_a_child_adopted_by_the_tree_stays(proc: Proc) -> None:
    """As after PR_SET_CHILD_SUBREAPER."""
    proc.put(101, OWN)
    proc.put(102, 101)
    watched = Watched(proc)
    watched.tick()
    proc.end(101)
    proc.put(102, OWN, own=500)
    found = watched.tick()
    assert (found["children"], found["used"]) == (1, 5)


def test_a_zombie_holds_nothing(proc: Proc) -> None:
    proc.put(101, OWN)
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN, state="Z")
    found = watched.tick()
    assert (found["children"], found["threads"], found["open_files"]) == (0, 1, 3)


@with_and_without_clocks
@pytest.mark.parametrize("text", ["", "garbage", "101 (python) S"])
def test_a_child_with_a_broken_stat_is_skipped(proc: Proc, clocks: bool, text: str) -> None:
    proc.put(101, OWN)
    if clocks:
        proc.clocks = {OWN: 0.0, 101: 0.0}
    watched = Watched(proc)
    watched.tick()
    (proc.proc / "101" / "stat").write_text(text)
    found = watched.tick()
    assert (found["threads"], found["open_files"]) == (1, 3)
    proc.put(101, OWN)
    assert watched.tick()["threads"] == 2


def test_an_unreadable_child_counts_by_its_clock(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(101, OWN)
    proc.clocks = {OWN: 0.0, 101: 0.0}
    watched = Watched(proc)
    watched.tick()
    read = process_tree.read_process_stat

    def deny(directory: str) -> object:
        if directory.endswith("101"):
            raise PermissionError(13, "Permission denied", directory)
        return read(directory)

    monkeypatch.setattr(process_tree, "read_process_stat", deny)
    proc.clocks[101] = 4.0
    found = watched.tick()
    assert (found["used"], found["children"]) == (4, 0)


def test_unreadable_files_and_private_memory_are_omitted(proc: Proc) -> None:
    proc.put(101, OWN, private=None)
    shutil.rmtree(proc.proc / "101" / "fd")
    found = Watched(proc).tick()
    assert (found["open_files"], found["memory_uss_megabytes"]) == (3, 4096 / 1e6)


def test_missing_values_of_this_process_are_gaps(proc: Proc) -> None:
    shutil.rmtree(proc.proc / "self" / "fd")
    (proc.proc / "self" / "smaps_rollup").unlink()
    watched = Watched(proc)
    assert watched.tick().keys() == {"memory_rss_megabytes", "threads", "children"}
    assert watched.one.gaps == ("open files cannot be counted", "private memory cannot be read")


def test_a_child_that_ends_between_listing_and_reading_is_skipped(proc: Proc) -> None:
    watched = Watched(proc)
    (proc.proc / "101").mkdir()
    proc.last_id(101)
    assert watched.tick()["children"] == 0


def test_the_stat_replaces_a_clock_that_ends_during_discovery(proc: Proc) -> None:
    proc.clocks = {OWN: 0.0}
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN, own=200)  # no clock: it ended in between
    found = watched.tick()
    assert (found["used"], found["children"]) == (2, 0)


def test_without_a_new_pid_children_are_searched_for_once_a_minute(proc: Proc) -> None:
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN)
    proc.last_id(OWN)
    watched.now -= 5
    assert watched.tick()["children"] == 0
    watched.now += 45
    assert watched.tick()["children"] == 1  # after a minute regardless


@pytest.mark.parametrize("last_id", [None, "0", "x"])
def test_without_a_last_pid_children_are_searched_for_at_every_tick(proc: Proc, last_id: str | None) -> None:
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN)
    proc.last_id(last_id)
    if last_id is None:
        (proc.proc / "loadavg").unlink()
    watched.now -= 5
    assert watched.tick()["children"] == 1


def test_an_expensive_listing_pauses(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter(range(10_000))
    watched = Watched(proc)
    watched.tick()
    monkeypatch.setattr(births.time, "thread_time", lambda: float(next(spent)))
    proc.put(101, OWN)
    assert watched.tick()["children"] == 1
    proc.put(102, OWN)
    assert watched.tick()["children"] == 1
    watched.now += 5000
    assert watched.tick()["children"] == 2


def test_many_children_are_found_a_few_per_tick(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(births.Births, "_most", lambda _, __: 2)
    watched = Watched(proc)
    watched.tick()
    for pid in range(101, 106):
        proc.put(pid, OWN)
    assert [watched.tick()["children"] for _ in range(3)] == [2, 4, 5]


def test_more_pids_are_examined_after_a_longer_time(proc: Proc) -> None:
    one = births.Births(Host(root=proc.root), OWN)
    assert [one._most(now) for now in (5.0, 6.0, 8.0, 8.1, 3600.0)] == [200, 200, 400, 200, 1000]


def test_earlier_children_are_primed_even_if_read_late(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(births, "_STATS_AT_FIRST", 1)
    monkeypatch.setattr(births.Births, "_most", lambda _, __: 1)
    for pid in range(101, 104):
        proc.put(pid, OWN, own=1000)
    watched = Watched(proc)
    watched.tick()
    found = watched.tick()
    assert (found["children"], found["used"]) == (3, 0)


def test_a_child_waits_for_a_parent_that_is_read_later(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process ids wrap around: a child may have a lower id than its parent."""
    monkeypatch.setattr(births, "_STATS_AT_FIRST", 1)
    monkeypatch.setattr(births.Births, "_most", lambda _, __: 9)
    proc.put(102, 50)
    proc.put(50, OWN)
    assert Watched(proc).tick()["children"] == 2


def test_a_child_waits_for_a_parent_that_the_listing_missed(proc: Proc) -> None:
    watched = Watched(proc)
    watched.tick()
    proc.put(102, 101)
    assert watched.tick()["children"] == 0
    proc.put(101, OWN)
    assert watched.tick()["children"] == 2


def test_processes_with_hidden_parents_are_given_up(proc: Proc) -> None:
    proc.put(102, 101)
    watched = Watched(proc)
    watched.tick()
    watched.tick()
    assert watched.one._tree._births._pending == set()


def test_children_that_do_not_fit_in_a_tick_are_read_in_turn(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "_READ_PER_TICK", 2)
    monkeypatch.setattr(process_tree, "_SECONDS_PER_TICK", 60)
    for pid in range(101, 106):
        proc.put(pid, OWN)
        proc.clocks[pid] = 0.0
    proc.clocks[OWN] = 0.0
    watched = Watched(proc)
    watched.tick()
    for pid in range(101, 106):
        proc.put(pid, OWN, threads=11)
    assert [watched.tick()["threads"] for _ in range(3)] == [26, 46, 56]


def test_expensive_children_are_read_one_per_tick(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "_SECONDS_PER_TICK", -1)
    for pid in (101, 102):
        proc.put(pid, OWN)
        proc.clocks[pid] = 0.0
    proc.clocks[OWN] = 0.0
    watched = Watched(proc)
    watched.tick()
    proc.put(101, OWN, threads=11)
    proc.put(102, OWN, threads=11)
    assert sorted(watched.tick()["threads"] for _ in range(2)) == [13, 23]


class Spender:
    """Private memory that costs one second to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spent = 0
        self.bytes = {1: 7, 2: 1}
        self.uss = uss.UssRounds(self.read)
        monkeypatch.setattr(uss.time, "thread_time", lambda: float(self.spent))

    def read(self, pid: int) -> int | None:
        self.spent += 1
        return self.bytes.get(pid)

    def ask(self, *moments: float, pids: tuple[int, ...] = (1,), resident: int = 100) -> list[int | None]:
        """Returns the sum at each moment."""
        return [self.uss.advance(now, pids, resident) for now in moments]


@pytest.mark.parametrize(("pids", "seconds"), [((1,), 290), ((1, 2), 60)], ids=["alone", "with a child"])
def test_private_memory_is_read_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, pids: tuple[int, ...], seconds: float
) -> None:
    monkeypatch.setattr(uss, "_REST", 0)
    spender = Spender(monkeypatch)
    first = spender.ask(0, 1, pids=pids)[-1]
    assert first is not None
    spender.bytes[1] += 2
    assert spender.ask(10, seconds - 1, pids=pids) == [first, first]
    assert spender.ask(seconds, seconds + 1, pids=pids)[-1] == first + 2


def test_a_change_of_resident_memory_renews_private_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uss, "_REST", 0)
    spender = Spender(monkeypatch)
    assert spender.ask(0) == [7]
    spender.bytes[1] = 9
    assert spender.ask(1, resident=109) == [7]
    assert spender.ask(2, resident=111) == [9]
    assert spender.ask(3, resident=115) == [9]


def test_private_memory_is_unknown_if_resident_memory_changes_during_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spender = Spender(monkeypatch)
    assert spender.ask(0) == [7]
    assert spender.ask(1, 4999, 5000, resident=50) == [None, None, 7]


def test_private_memory_is_summed_over_several_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uss, "_REST", 500)
    spender = Spender(monkeypatch)
    assert spender.ask(0, 499, 500, pids=(1, 2)) == [None, None, 8]
    spender.bytes[1] = 9
    assert spender.ask(560, 1000, 1500, pids=(1, 2)) == [8, None, 10]


def test_private_memory_expires_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    spender = Spender(monkeypatch)
    assert spender.ask(0, 600, 601, 5000) == [7, 7, None, 7]


def test_the_first_round_over_few_processes_does_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uss, "_AT_ONCE_SECONDS", 1.5)
    spender = Spender(monkeypatch)
    assert spender.ask(0, 1, pids=(1, 2)) == [None, 8]
    assert spender.spent == 2


def test_the_pause_of_private_memory_grows_with_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    spender = Spender(monkeypatch)
    spender.ask(0, 4990, 5000)
    assert spender.spent == 2


def test_private_memory_that_becomes_unreadable_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    spender = Spender(monkeypatch)
    assert spender.ask(0) == [7]
    spender.bytes.clear()
    assert spender.ask(5000, pids=(1, 2)) == [None]
    assert not spender.uss.readable


def test_no_tick_waits_for_private_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uss, "_ANSWER_SECONDS", 0.0)
    answers = threading.Event()

    def read(pid: int) -> int:
        answers.wait(60)
        return pid

    rounds = uss.UssRounds(read)
    assert [rounds.advance(now, [7], 100) for now in (0.0, 1.0, 2.0)] == [None, None, None]
    assert [one.name for one in threading.enumerate()].count("sysmetrics-uss") == 1
    other = uss.UssRounds(read)  # of a collector that is built anew
    assert other.advance(3.0, [7], 100) is None
    assert [one.name for one in threading.enumerate()].count("sysmetrics-uss") == 1
    answers.set()
    eventually(lambda: rounds.advance(4.0, [7], 100) == 7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on Windows")
def test_a_process_without_children_is_told_from_one_with(tmp_path: Path) -> None:
    found = []
    child = os.fork()
    if not child:
        found.append(Host().may_have_children())
        grandchild = os.fork()
        if not grandchild:
            os._exit(0)
        found.append(Host().may_have_children())
        os.waitpid(grandchild, 0)
        found.append(Host().may_have_children())
        os._exit(found != [False, True, False])
    assert os.waitpid(child, 0)[1] == 0
    assert Host(root=tmp_path).may_have_children(), "nobody knows that of a recorded machine"


def test_files_are_listed_if_the_directory_size_is_not_their_number(proc: Proc) -> None:
    proc.put(OWN, 1, files=5)
    assert member.OpenFiles(str(proc.proc / "self")).count(str(proc.proc / "self")) == 5


def test_a_clock_of_another_process_is_not_used(proc: Proc) -> None:
    """The /proc of another pid namespace has different ids."""
    proc.clocks = {OWN: 1000.0}
    watched = Watched(proc)
    watched.tick()
    proc.clocks[OWN] = 1005.0
    assert watched.tick()["used"] == 0


def test_the_stat_replaces_a_failing_clock_of_this_process(proc: Proc) -> None:
    proc.clocks = {OWN: 0.0}
    watched = Watched(proc)
    watched.tick()
    proc.clocks.clear()
    proc.put(OWN, 1, own=200)
    assert watched.tick()["used"] == 2


def test_a_clock_that_goes_backwards_skips_one_cpu_value(proc: Proc) -> None:
    watched = Watched(proc)
    watched.tick()
    proc.put(OWN, 1, own=200)
    watched.now -= 15
    assert "used" not in watched.tick()
    proc.put(OWN, 1, own=300)
    assert watched.tick()["used"] == 1


def test_time_used_in_a_short_interval_counts_in_the_next(proc: Proc) -> None:
    watched = Watched(proc)
    watched.tick()
    proc.put(OWN, 1, own=100)
    watched.now -= 9.9
    assert "used" not in watched.tick()
    proc.put(OWN, 1, own=300)
    watched.now -= 0.1
    assert watched.tick()["used"] == 3


def test_counters_that_decrease_count_nothing(proc: Proc) -> None:
    proc.put(OWN, 1, own=500, ended=500)
    watched = Watched(proc)
    watched.tick()
    proc.put(OWN, 1, own=100, ended=100)
    assert watched.tick()["used"] == 0


def test_an_unlistable_proc_leaves_only_this_process(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(births.os, "listdir", deny)
    assert Watched(proc).tick()["children"] == 0


@pytest.mark.parametrize("text", [None, "", "garbage"])
def test_without_its_own_stat_the_tree_is_unavailable(proc: Proc, text: str | None) -> None:
    path = proc.proc / "self" / "stat"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(Unavailable, match="stat"):
        ProcessLinux(proc.host())


def test_a_vanished_own_stat_is_handled_by_the_probe(proc: Proc) -> None:
    watched = Watched(proc)
    watched.tick()
    (proc.proc / "self" / "stat").unlink()
    with pytest.raises(FileNotFoundError):
        watched.tick()
    proc.put(OWN, 1, own=100)
    watched.now = 10
    assert watched.tick()["used"] == 1


def test_between_points_only_the_resident_memory_of_a_process_without_children_is_read(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.put(OWN, 1)
    monkeypatch.setattr(births.Births, "is_impossible", lambda _: True)
    one = ProcessLinux(proc.host())
    keys = {sample.key for sample in one.collect(1)}
    (proc.proc / "self/statm").write_text("100 25 3 1 0 30 0\n")
    assert [tuple(one.levels(now)[0])[::2] for now in (2, 3)] == [
        ("process_memory_rss_megabytes", 25 * PAGE / 1e6)
    ] * 2
    assert {sample.key for sample in one.levels(7)} >= keys, "the rest is read every 5 s"
    assert len(one.levels(8)) == 1
    assert {sample.key for sample in one.collect(9)} >= keys, "and when a point is due"


def test_without_statm_everything_is_read_at_each_tick(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.put(OWN, 1)
    monkeypatch.setattr(births.Births, "is_impossible", lambda _: True)
    one = ProcessLinux(proc.host())
    one.collect(1)
    for text in (None, "", "100", "100 many"):
        if text is not None:
            (proc.proc / "self/statm").write_text(text)
        assert len(one.levels(2)) > 1
