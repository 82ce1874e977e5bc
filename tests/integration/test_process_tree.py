"""Real trees of processes, held against what the kernel accounts."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own account is read on Linux")

# A parent in an interpreter of its own, so that no thread of pytest counts and no child is forked from it.
PREAMBLE = """
import json, os, resource, signal, sys, time
from mlflow_sysmetrics.collectors.process_linux import ProcessLinux
from mlflow_sysmetrics.collectors.process_psutil import ProcessPsutil
from mlflow_sysmetrics.host import Host

def clock(pid):
    return time.clock_gettime((~pid << 3) | 2)

def accounted(children):
    spent = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return spent + sum(map(clock, children))

def fork(work, *given):
    pid = os.fork()
    if pid == 0:
        try:
            work(*given)
        finally:
            os._exit(0)
    return pid

def burn(seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass

def values(one, now):
    return {key.removeprefix("process_"): (value, span) for key, _, value, span in one.collect(now)}
"""


def run(path: Path, code: str) -> Any:
    """Returns what a parent prints last, as JSON."""
    program = path / "parent.py"
    program.write_text(PREAMBLE + textwrap.dedent(code))
    found = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("interval", [0.2, 0.5])
def test_three_busy_children_one_restarted_all_the_time_within_a_tenth(
    tmp_path: Path, interval: float
) -> None:
    code = f"""
        children = [fork(burn, 30), fork(burn, 30)]
        one = ProcessLinux(Host())
        began = time.monotonic()
        values(one, began)
        before = accounted(children)
        shown, restarts = 0.0, 0
        while time.monotonic() - began < 4:
            due = time.monotonic() + {interval}
            while time.monotonic() < due:
                short = fork(burn, 0.2)
                os.waitpid(short, 0)
                restarts += 1
            percent, span = values(one, time.monotonic())["cpu_percentage"]
            shown += percent / 100 * span
        spent = accounted(children) - before
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([shown, spent, restarts]))
    """
    shown, spent, restarts = run(tmp_path, code)
    assert restarts > 10
    assert shown == pytest.approx(spent, rel=0.1)


def test_a_child_restarted_beside_the_ticks_within_a_tenth(tmp_path: Path) -> None:
    """The ticks fall anywhere in the lives of the short children, as those of the sampler do."""
    code = """
        children = [fork(burn, 30), fork(burn, 30)]
        one = ProcessLinux(Host())
        began = time.monotonic()
        values(one, began)
        before = accounted(children)
        short, short_ends, shown, born = fork(burn, 0.2), began + 0.2, 0.0, 1
        for tick in range(1, 26):
            due = began + tick * 0.16
            while time.monotonic() < due:
                if os.waitpid(short, os.WNOHANG)[0]:
                    short, born = fork(burn, 0.2), born + 1
                time.sleep(0.002)
            percent, span = values(one, time.monotonic()).get("cpu_percentage", (0, 0))
            shown += percent / 100 * span
        os.waitpid(short, 0)
        time.sleep(0.16)
        percent, span = values(one, time.monotonic())["cpu_percentage"]
        spent = accounted(children) - before
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([shown + percent / 100 * span, spent, born]))
    """
    shown, spent, born = run(tmp_path, code)
    assert born > 10
    assert shown == pytest.approx(spent, rel=0.1)


def test_grandchildren_count_once_through_their_parent(tmp_path: Path) -> None:
    code = """
        def parent():
            for _ in range(12):
                os.waitpid(fork(burn, 0.1), 0)
        one = ProcessLinux(Host())
        began = time.monotonic()
        values(one, began)
        before = accounted([])
        child, shown = fork(parent), 0.0
        while not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.16)
            percent, span = values(one, time.monotonic())["cpu_percentage"]
            shown += percent / 100 * span
        time.sleep(0.16)
        percent, span = values(one, time.monotonic())["cpu_percentage"]
        print(json.dumps([shown + percent / 100 * span, accounted([]) - before]))
    """
    shown, spent = run(tmp_path, code)
    assert spent > 0.1
    assert shown == pytest.approx(spent, rel=0.1, abs=0.03)  # two ticks of 10 ms of rounding, and ours


def test_children_that_nobody_waits_for_count_while_they_are_seen(tmp_path: Path) -> None:
    """Where SIGCHLD is ignored the kernel gives their time to nobody."""
    code = """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        one = ProcessLinux(Host())
        began = time.monotonic()
        values(one, began)
        child = fork(burn, 0.5)
        shown, spent = 0.0, 0.0
        for _ in range(5):
            time.sleep(0.16)
            try:
                spent = clock(child)
            except OSError:
                pass
            percent, span = values(one, time.monotonic())["cpu_percentage"]
            shown += percent / 100 * span
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.waitpid(fork(burn, 0.5), 0)
        percent, span = values(one, time.monotonic())["cpu_percentage"]
        after = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        print(json.dumps([shown, spent, percent / 100 * span, after]))
    """
    shown, spent, shown_after, spent_after = run(tmp_path, code)
    assert shown == pytest.approx(spent, rel=0.1)
    assert shown_after == pytest.approx(spent_after, abs=0.05)


def test_children_that_leave_the_tree_are_no_children(tmp_path: Path) -> None:
    code = """
        def leave():
            fork(time.sleep, 30)
        one = ProcessLinux(Host())
        values(one, 0)
        middle = fork(lambda: (leave(), time.sleep(0.3)))
        time.sleep(0.1)
        before = values(one, 1)["children"][0]
        os.waitpid(middle, 0)
        print(json.dumps([before, values(one, 2)["children"][0]]))
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) > middle:
                with open(f"/proc/{name}/cmdline") as file:
                    if sys.argv[0] in file.read():
                        os.kill(int(name), signal.SIGKILL)
    """
    assert run(tmp_path, code) == [2, 0]


def test_200_children_are_counted_and_no_file_stays_open(tmp_path: Path) -> None:
    code = """
        one = ProcessLinux(Host())
        values(one, 0)
        children = [fork(signal.pause) for _ in range(200)]
        before = len(os.listdir("/proc/self/fd"))
        for now in range(1, 31):
            found = values(one, now)
            assert len(os.listdir("/proc/self/fd")) == before
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in children) + before - 1
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        after = values(one, 31)
        print(json.dumps([found["children"][0], found["threads"][0], found["open_files"][0] - files,
            after["children"][0]]))
    """
    assert run(tmp_path, code) == [200, 201, 0, 0]


@pytest.mark.parametrize("collector", ["ProcessLinux", "ProcessPsutil"])
def test_memory_is_what_psutil_says(tmp_path: Path, collector: str) -> None:
    code = f"""
        import psutil
        held = bytearray(os.urandom(1)) * 50_000_000
        children = [fork(signal.pause) for _ in range(2)]
        one = {collector}(Host())
        found = {{}}
        for now in range(0, 100, 10):
            found.update(values(one, now))
        everybody = [psutil.Process(pid).memory_full_info() for pid in [os.getpid(), *children]]
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([found["memory_rss_megabytes"][0], sum(one.rss for one in everybody) / 1e6,
            found["memory_uss_megabytes"][0],
            sum(one.uss for one in everybody) / 1e6]))
    """
    rss, expected_rss, uss, expected_uss = run(tmp_path, code)
    assert rss == pytest.approx(expected_rss, rel=0.02)
    assert uss == pytest.approx(expected_uss, rel=0.1)


def test_psutil_sees_the_same_children_and_time(tmp_path: Path) -> None:
    code = """
        children = [fork(burn, 30), fork(burn, 30)]
        one = ProcessPsutil(Host())
        began = time.monotonic()
        values(one, began)
        before = accounted(children)
        shown = 0.0
        for _ in range(8):
            time.sleep(0.25)
            found = values(one, time.monotonic())
            percent, span = found["cpu_percentage"]
            shown += percent / 100 * span
        spent = accounted(children) - before
        for child in children:
            os.kill(child, signal.SIGKILL)
        print(json.dumps([shown, spent, found["children"][0]]))
    """
    shown, spent, children = run(tmp_path, code)
    assert children == 2
    assert shown == pytest.approx(spent, rel=0.1)
