"""Real process trees, compared with the kernel's accounting."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="compares with the accounting of Linux")

# The kernel's clock ticks every 10 ms and rounds down: user time and system time of one process, or of its
# children that have ended, at each end of a difference.
TICKS_SECONDS = 0.02

# The parent runs in a separate interpreter, so that threads of pytest do not count and no child is forked from it.
#
# `accounted` and the collector read at different moments, with an unknown delay between them. So the kernel's
# accounting is read before and after each reading of the collector, and the collector's result must lie between
# the smallest and the largest difference.
PREAMBLE = """
import ctypes, json, os, resource, signal, sys, threading, time
from mlflow_sysmetrics.collectors.process_linux import ProcessLinux
from mlflow_sysmetrics.collectors.process_psutil import ProcessPsutil
from mlflow_sysmetrics.machine.host import Host

libc = ctypes.CDLL(None)

def clock(pid):
    return time.clock_gettime((~pid << 3) | 2)

def accounted(children):
    spent = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return spent + sum(map(clock, children))

def fork(work, *given):
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: however the parent ends, the child holds no pipe open
            if os.getppid() == parent:
                work(*given)
        finally:
            os._exit(0)
    return pid

def spend(seconds):
    while time.process_time() < seconds:  # a child begins at 0
        pass

def burn():
    parent = os.getppid()
    while os.getppid() == parent:  # ends with the parent, for whatever reason
        pass

def values(one, now):
    return {key.removeprefix("process_"): (value, span) for key, _, value, span in one.collect(now)}

def alone():
    while any(one.name == "sysmetrics-uss" for one in threading.enumerate()):  # reads private memory
        time.sleep(0.001)

class Watched:
    def __init__(self, one, children=()):
        self.one, self.shown = one, 0.0
        self.first = self.last = self.look(children)

    def look(self, children):
        before = accounted(children)
        found = values(self.one, time.monotonic())
        after = accounted(children)
        percent, span = found.get("cpu_percentage", (0.0, 0.0))
        self.shown += percent / 100 * span
        self.last = before, after
        return self.last

    def bracket(self):
        return [self.shown, self.last[0] - self.first[1], self.last[1] - self.first[0]]

def rest():
    time.sleep(0.16)  # a rate covers at least 0.15 s
"""


def run(path: Path, code: str) -> Any:
    """Runs a parent program and returns its output, as JSON."""
    program = path / "parent.py"
    program.write_text(PREAMBLE + textwrap.dedent(code))
    found = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def assert_between(
    shown: float, least: float, most: float, *, share: float = 0.0, processes: int = 1
) -> None:
    """Asserts that a time lies between two others, within a share and the rounding of the kernel."""
    rounding = TICKS_SECONDS * processes
    assert least * (1 - share) - rounding <= shown <= most * (1 + share) + rounding, (least, shown, most)


@pytest.mark.parametrize("interval", [0.2, 0.5])
def test_three_busy_children_one_restarted_constantly_within_a_tenth(tmp_path: Path, interval: float) -> None:
    code = f"""
        watched = Watched(ProcessLinux(Host()))
        began = time.monotonic()
        children = [fork(burn), fork(burn)]
        restarts = 0
        while restarts <= 10 or time.monotonic() - began < 2:
            due = time.monotonic() + {interval}
            while time.monotonic() < due:
                os.waitpid(fork(spend, 0.1), 0)
                restarts += 1
            watched.look(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps(watched.bracket()))
    """
    shown, least, most = run(tmp_path, code)
    assert least > 1  # ten children of a tenth of a second
    assert_between(shown, least, most, share=0.1)


def test_a_child_restarted_independently_of_ticks_within_a_tenth(tmp_path: Path) -> None:
    """Like the sampler's, the ticks fall anywhere in the lives of the short children."""
    code = """
        watched = Watched(ProcessLinux(Host()))
        began = time.monotonic()
        children = [fork(burn), fork(burn)]
        short, born, tick = fork(spend, 0.1), 1, 0
        while born <= 10 or tick < 25:
            tick += 1
            due = time.monotonic() + 0.16
            while time.monotonic() < due:
                if os.waitpid(short, os.WNOHANG)[0]:
                    short, born = fork(spend, 0.1), born + 1
                time.sleep(0.002)
            watched.look([*children, short])
        os.waitpid(short, 0)
        rest()
        watched.look(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps(watched.bracket()))
    """
    shown, least, most = run(tmp_path, code)
    assert least > 1  # ten children of a tenth of a second
    assert_between(shown, least, most, share=0.1)


def test_grandchildren_count_once_through_their_parent(tmp_path: Path) -> None:
    code = """
        def parent():
            for _ in range(12):
                os.waitpid(fork(spend, 0.1), 0)
        watched = Watched(ProcessLinux(Host()))
        child = fork(parent)
        while not os.waitpid(child, os.WNOHANG)[0]:
            rest()
            watched.look([])
        rest()
        watched.look([])
        print(json.dumps(watched.bracket()))
    """
    shown, least, most = run(tmp_path, code)
    assert least > 1.2
    assert_between(shown, least, most, processes=2)


def test_children_that_are_not_waited_for_count_while_they_exist(tmp_path: Path) -> None:
    """If SIGCHLD is ignored, the kernel adds their time to no process."""
    code = """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        watched = Watched(ProcessLinux(Host()))
        child = fork(burn)
        while clock(child) < 0.3:
            rest()
            watched.look([child])
        rest()
        watched.look([child])
        print(json.dumps(watched.bracket()))
        os.kill(child, signal.SIGKILL)
    """
    shown, least, most = run(tmp_path, code)
    assert least > 0.3
    assert_between(shown, least, most)


def test_time_of_children_that_were_not_waited_for_is_not_subtracted_later(tmp_path: Path) -> None:
    """It never reaches the parent, so the time of a child that is waited for counts in full."""
    code = """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        watched = Watched(ProcessLinux(Host()))
        child = fork(burn)
        while clock(child) < 0.3:
            rest()
            watched.look([child])
        os.kill(child, signal.SIGKILL)
        while os.path.exists(f"/proc/{child}"):
            time.sleep(0.005)
        for _ in range(2):
            rest()
            watched.look([])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        watched.first, watched.shown = watched.last, 0.0
        os.waitpid(fork(spend, 0.5), 0)
        rest()
        watched.look([])
        print(json.dumps(watched.bracket()))
    """
    shown, least, most = run(tmp_path, code)
    assert least > 0.5
    assert_between(shown, least, most, processes=2)


def test_children_that_leave_the_tree_do_not_count(tmp_path: Path) -> None:
    code = """
        born, tell_born = os.pipe()
        go, tell_go = os.pipe()
        def middle():
            os.close(tell_go)
            os.write(tell_born, str(fork(signal.pause)).encode())
            os.read(go, 1)
        one = ProcessLinux(Host())
        values(one, 0)
        child = fork(middle)
        grandchild = int(os.read(born, 20))
        # Listing processes pauses in proportion to its cost: jump far ahead so that it runs again.
        before = values(one, 1000)["children"][0]
        os.write(tell_go, b"x")
        os.waitpid(child, 0)
        print(json.dumps([before, values(one, 2000)["children"][0]]))
        os.kill(grandchild, signal.SIGKILL)
    """
    assert run(tmp_path, code) == [2, 0]


def test_200_children_are_counted_without_leaking_files(tmp_path: Path) -> None:
    code = """
        one = ProcessLinux(Host())
        values(one, 0)
        children = [fork(signal.pause) for _ in range(200)]
        counts = []
        for now in range(1000, 31000, 1000):  # listing processes pauses in proportion to its cost
            found = values(one, now)
            alone()
            counts.append(len(os.listdir("/proc/self/fd")))
        assert len(set(counts[10:])) == 1, counts  # files that stay open are opened at the first ticks
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in children) + counts[-1] - 1
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        after = values(one, 31000)
        threads = found["threads"][0] - threading.active_count() + 1  # the one that reads stays for a while
        print(json.dumps([found["children"][0], threads, found["open_files"][0] - files,
            after["children"][0]]))
    """
    assert run(tmp_path, code) == [200, 201, 0, 0]


@pytest.mark.parametrize("collector", ["ProcessLinux", "ProcessPsutil"])
def test_memory_matches_psutil(tmp_path: Path, collector: str) -> None:
    code = f"""
        import psutil
        held = bytearray(os.urandom(1)) * 50_000_000
        children = [fork(signal.pause) for _ in range(2)]
        one = {collector}(Host())
        def expected():
            processes = [psutil.Process(pid).memory_full_info() for pid in [os.getpid(), *children]]
            return [sum(one.rss for one in processes) / 1e6, sum(one.uss for one in processes) / 1e6]
        found, before, now = {{}}, expected(), 0
        while "memory_uss_megabytes" not in found and now < 10_000:  # it is unknown until all were read once
            found.update(values(one, now))
            alone()
            now += 10
        after = expected()
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([found["memory_rss_megabytes"][0], found["memory_uss_megabytes"][0], before, after]))
    """
    rss, uss, before, after = run(tmp_path, code)
    for value, share, seen in zip((rss, uss), (0.02, 0.1), zip(before, after, strict=True), strict=True):
        assert min(seen) * (1 - share) <= value <= max(seen) * (1 + share)


def test_the_psutil_collector_sees_the_same_children_and_time(tmp_path: Path) -> None:
    code = """
        children = [fork(burn), fork(burn)]
        watched = Watched(ProcessPsutil(Host()), children)
        while accounted(children) - watched.first[1] < 0.5:
            rest()
            watched.look(children)
        rest()
        watched.look(children)
        found = values(watched.one, time.monotonic())
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([*watched.bracket(), found["children"][0]]))
    """
    shown, least, most, children = run(tmp_path, code)
    assert children == 2
    assert least > 0.5
    assert_between(shown, least, most, processes=3)
