"""Facts in a forked child."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from facts_machines import machine, tools

from mlflow_sysmetrics.facts import HostFacts, linux
from mlflow_sysmetrics.facts.discovery import _OfThisProcess, host_facts
from mlflow_sysmetrics.facts.fact_list import Fact, Sources

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")

LONG_SECONDS = 60.0


def true_in_child(check: Callable[[], bool]) -> bool:
    """Returns the result of `check` in a forked child; False if it raises."""
    with warnings.catch_warnings():
        # Python 3.12 warns about forks while threads run, which these tests do on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


class Gate:
    """A fact that completes when the test opens it, or immediately in a child."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.pid = os.getpid()

    def fact(self) -> Fact:
        """Returns the gate as a fact."""
        return Fact("gate", self._find)

    def _find(self, sources: Sources) -> Iterator[tuple[str, str]]:
        if os.getpid() == self.pid:
            assert self.opened.wait(LONG_SECONDS)
        yield "sys.pid", str(os.getpid())


def test_complete_facts_survive_a_fork() -> None:
    facts = host_facts()
    parents = facts.tags(LONG_SECONDS)
    assert facts.complete

    def check() -> bool:
        childs = host_facts().tags()
        return (
            host_facts() is facts
            and threading.active_count() == 1
            and childs["sys.platform"] == parents["sys.platform"]
        )

    assert true_in_child(check)


def test_incomplete_facts_are_found_again_in_the_child(tmp_path: Path) -> None:
    gate = Gate()
    facts = HostFacts(machine(tmp_path), system=linux, run=tools(), facts=[gate.fact()])
    facts.tags(wait_seconds=0.0)

    def check() -> bool:
        facts.after_fork()
        return not facts.complete and facts.tags(LONG_SECONDS)["sys.pid"] == str(os.getpid())

    try:
        assert true_in_child(check)
    finally:
        gate.opened.set()
    assert facts.tags(LONG_SECONDS)["sys.pid"] == str(os.getpid())


def test_a_lock_held_at_the_fork_is_free_in_the_child(tmp_path: Path) -> None:
    facts = HostFacts(machine(tmp_path), system=linux, run=tools(), facts=())

    def check() -> bool:
        facts.after_fork()
        return facts.tags(LONG_SECONDS) == {"sys.disk_free_gb": "42.34"}

    with facts._lock:
        assert true_in_child(check)


def test_an_incomplete_facts_object_is_replaced_in_the_child() -> None:
    of_this_process = _OfThisProcess()
    incomplete = of_this_process.get()

    def check() -> bool:
        of_this_process.after_fork()
        return of_this_process.get() is not incomplete

    assert true_in_child(check)
    assert of_this_process.get() is incomplete
