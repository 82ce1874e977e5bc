"""A source of facts that does not answer costs its own tags, and neither start_run nor the other facts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from facts_machines import machine, tools

from mlflow_sysmetrics.facts import HostFacts, discovery, fact_list, linux
from mlflow_sysmetrics.facts.fact_list import Fact, Sources
from mlflow_sysmetrics.facts.gpus import LazyGpuSource
from mlflow_sysmetrics.machine.host import DiskUsage
from watching import LONG_SECONDS, eventually

pytestmark = pytest.mark.heavy


class Gate:
    """A fact that hangs until it is let go."""

    def __init__(self, name: str) -> None:
        self.inside, self.answers = threading.Event(), threading.Event()
        self.fact = Fact(name, self._find)

    def _find(self, sources: Sources) -> Iterator[tuple[str, str]]:
        del sources
        self.inside.set()
        assert self.answers.wait(LONG_SECONDS)
        yield f"sys.{self.fact.name}", "1"


def quick(name: str) -> Fact:
    def find(sources: Sources) -> Iterator[tuple[str, str]]:
        del sources
        yield f"sys.{name}", "1"

    return Fact(name, find)


@pytest.fixture(autouse=True)
def _hangs_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_HANGS_SECONDS", 0.1)


def test_the_facts_after_one_that_hangs_are_found(tmp_path: Path) -> None:
    memory, gpu = Gate("memory"), Gate("gpu")
    facts = HostFacts(
        machine(tmp_path),
        system=linux,
        run=tools(),
        facts=[quick("os"), memory.fact, quick("cpu"), gpu.fact, quick("last")],
    )
    told: list[dict[str, str]] = []
    facts.tags(0)
    facts.when_complete(told.append)
    eventually(lambda: facts.complete and told)
    error = "memory: no answer within 0.1 s; gpu: no answer within 0.1 s"
    found = {"sys.os": "1", "sys.cpu": "1", "sys.last": "1", "sys.disk_free_gb": "42.34"}
    assert told == [{**found, "sysmetrics.error": error}]
    memory.answers.set()
    eventually(lambda: len(told) > 1)
    assert told[1] == {**found, "sys.memory": "1", "sysmetrics.error": "gpu: no answer within 0.1 s"}
    gpu.answers.set()
    eventually(lambda: "sysmetrics.error" not in facts.tags())
    assert facts.tags()["sys.gpu"] == "1"


def test_a_run_that_starts_while_a_fact_hangs_is_told_when_it_answers(tmp_path: Path) -> None:
    gpu = Gate("gpu")
    facts = HostFacts(machine(tmp_path), system=linux, run=tools(), facts=[gpu.fact])
    facts.tags(0)
    eventually(lambda: facts.complete)
    told: list[dict[str, str]] = []
    facts.when_complete(told.append)
    assert "sys.gpu" not in told[0]
    gpu.answers.set()
    eventually(lambda: len(told) == 2)
    assert told[1]["sys.gpu"] == "1"


def test_a_working_directory_that_does_not_answer_delays_one_run(tmp_path: Path) -> None:
    answers, calls = threading.Event(), []

    def disk_usage(path: str) -> DiskUsage:
        calls.append(path)
        assert answers.wait(LONG_SECONDS)
        return DiskUsage(100, 60, 42_340_000_000)

    host = replace(machine(tmp_path), disk_usage=disk_usage)
    facts = HostFacts(host, system=linux, run=tools(), facts=[])
    for _ in range(5):
        tags = facts.tags()
        assert tags == {"sysmetrics.error": "disk: the working directory's filesystem does not answer"}
    assert len(calls) == 1
    answers.set()
    eventually(lambda: facts.tags() == {"sys.disk_free_gb": "42.34"})


def test_a_look_for_a_tool_that_hangs_does_not_hold_up_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a directory of PATH on a filesystem whose server is gone."""
    answers = threading.Event()
    hanging = LazyGpuSource("nvidia_smi", lambda _: answers.wait(LONG_SECONDS))
    monkeypatch.setattr(linux, "GPU_SOURCES", (hanging,))
    monkeypatch.setattr(fact_list, "_PRESENCE_SECONDS", 0.05)
    facts = HostFacts(machine(tmp_path), system=linux, run=tools(), facts=[quick("os")])
    assert facts.tags(LONG_SECONDS)["sys.os"] == "1"
    answers.set()
