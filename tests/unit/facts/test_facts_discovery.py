"""Discovery of facts: once, in the background, each behind its own guard."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from facts_machines import NO_NVML, machine, printed, tools

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import HostFacts, fact_list, host_facts, linux, macos, windows
from mlflow_sysmetrics.facts.fact_list import FACTS, Fact, OperatingSystem, Sources, operating_system
from mlflow_sysmetrics.machine.command import CommandMissing, Commands, CommandTimeout
from mlflow_sysmetrics.machine.host import Host
from stalls import Stalls
from watching import eventually

LINUX_FILES = {
    "proc/stat": "cpu  1\ncpu0 1\ncpu1 1\n",
    "proc/cpuinfo": printed("cpuinfo/epyc_9654_two_cores.txt"),
    "proc/meminfo": "MemTotal:       16000000 kB\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/dmi/id/sys_vendor": "Amazon EC2\n",
    "sys/class/dmi/id/product_name": "g6.xlarge\n",
}
LONG_SECONDS = 60.0


def linux_facts(root: Path, fake: FakeNvml = NO_NVML, **answers: str | Exception) -> HostFacts:
    return HostFacts(machine(root, LINUX_FILES, nvml=fake), system=linux, run=tools(**answers))


def only(name: str, *found: tuple[str, str], error: Exception | None = None) -> Fact:
    def find(sources: Sources) -> Iterator[tuple[str, str]]:
        yield from found
        if error is not None:
            raise error

    return Fact(name, find)


def made_of(root: Path, *facts: Fact) -> HostFacts:
    return HostFacts(machine(root), system=linux, run=tools(), facts=facts)


def test_describes_a_linux_machine_with_two_gpus(tmp_path: Path) -> None:
    t4 = FakeGpu("Tesla T4", "GPU-1", 16_106_127_360)
    tags = linux_facts(tmp_path, FakeNvml(t4, t4)).tags(LONG_SECONDS)
    for measured in ("sys.hostname", "sys.platform", "sys.python"):
        assert tags.pop(measured)
    assert tags == {
        "sys.cpu": "AMD EPYC 9654 96-Core Processor",
        "sys.cpu_cores": "2",
        "sys.cpu_cores_physical": "2",
        "sys.cpu_cores_effective": "2",
        "sys.memory_gb": "16.38",
        "sys.disk_free_gb": "42.34",
        "sys.os": "Debian GNU/Linux 12 (bookworm)",
        "sys.cloud": "aws g6.xlarge",
        "sys.gpu": "2 x Tesla T4",
        "sys.gpu_count": "2",
        "sys.gpu_memory_gb": "16.11,16.11",
        "sys.gpu_driver": "570.133.20",
        "sys.gpu_cuda": "12.8",
        "sys.gpu_uuid": "GPU-1,GPU-1",
        "sys.gpu_index": "0,1",
    }


def test_describes_a_mac(tmp_path: Path) -> None:
    answers = {"sysctl": "Apple M2 Max\n", "system_profiler": printed("system_profiler/m2_max.json")}
    tags = HostFacts(machine(tmp_path), system=macos, run=tools(**answers)).tags(LONG_SECONDS)
    assert tags["sys.cpu"] == "Apple M2 Max"
    assert tags["sys.gpu"] == "Apple M2 Max"
    assert tags["sys.gpu_memory_gb"] == "unified"


def test_describes_a_windows_machine(tmp_path: Path) -> None:
    answers = {"powershell": printed("video_controller/integrated_and_discrete.json")}
    tags = HostFacts(machine(tmp_path), system=windows, run=tools(**answers)).tags(LONG_SECONDS)
    assert tags["sys.gpu"] == "Intel(R) UHD Graphics 770, NVIDIA GeForce RTX 3060"
    assert tags["sys.gpu_memory_gb"] == "1.07,unknown"


@pytest.mark.parametrize("system", [linux, macos, windows], ids=["linux", "macos", "windows"])
def test_an_empty_machine_gives_reasons_and_does_not_raise(tmp_path: Path, system: OperatingSystem) -> None:
    facts = HostFacts(machine(tmp_path), system=system, run=tools())
    tags = facts.tags(LONG_SECONDS)
    assert facts.complete
    assert tags["sys.cpu"]
    assert "cpu: " in tags["sysmetrics.error"]
    assert all(0 < len(value) < 250 for value in tags.values())


@pytest.mark.parametrize(
    ("name", "system"), [("linux", linux), ("darwin", macos), ("win32", windows), ("freebsd14", linux)]
)
def test_each_platform_has_its_module(name: str, system: OperatingSystem) -> None:
    assert operating_system(name) is system


def test_a_failing_fact_affects_no_other(tmp_path: Path) -> None:
    facts = made_of(
        tmp_path,
        only("one", ("sys.one", "1"), error=Unavailable("half of it is missing")),
        only("two", error=OSError(13, "Permission denied", "/home/somebody/x")),
        only("three", error=KeyError("somebody")),
        only("four", ("sys.four", "4")),
    )
    tags = facts.tags(LONG_SECONDS)
    assert tags == {
        "sys.one": "1",
        "sys.four": "4",
        "sys.disk_free_gb": "42.34",
        "sysmetrics.error": "one: half of it is missing; two: Permission denied; three: KeyError",
    }


def test_there_is_no_error_tag_if_all_facts_are_found(tmp_path: Path) -> None:
    assert "sysmetrics.error" not in linux_facts(tmp_path).tags(LONG_SECONDS)


def test_values_are_cut_and_empty_ones_omitted(tmp_path: Path) -> None:
    facts = made_of(tmp_path, only("one", ("sys.long", "x" * 1000), ("sys.empty", " ")))
    tags = facts.tags(LONG_SECONDS)
    assert len(tags["sys.long"]) == 249
    assert "sys.empty" not in tags


def test_tags_are_a_fresh_dict(tmp_path: Path) -> None:
    facts = linux_facts(tmp_path)
    facts.tags(LONG_SECONDS).clear()
    assert facts.tags()["sys.cpu_cores"] == "2"


def test_facts_are_found_once_except_for_the_disk(tmp_path: Path) -> None:
    calls: list[str] = []

    def find(sources: Sources) -> Iterator[tuple[str, str]]:
        calls.append("fact")
        yield "sys.one", "1"

    host = machine(tmp_path)
    space = iter([host.disk_usage("."), host.disk_usage(".")._replace(free=1_000_000_000)])
    counted = Host(root=tmp_path, environ={}, disk_usage=lambda _: next(space))
    facts = HostFacts(counted, system=linux, run=tools(), facts=[Fact("one", find)])
    assert [facts.tags(LONG_SECONDS)["sys.disk_free_gb"] for _ in range(2)] == ["42.34", "1.00"]
    assert calls == ["fact"]


def test_a_removed_working_directory_is_reported(tmp_path: Path) -> None:
    def gone(path: str) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", path)

    facts = HostFacts(Host(root=tmp_path, environ={}, disk_usage=gone), system=linux, run=tools(), facts=())
    assert facts.tags(LONG_SECONDS) == {"sysmetrics.error": "disk: No such file or directory"}


def test_nothing_starts_before_tags_are_requested(tmp_path: Path) -> None:
    started = threading.Event()

    def find(sources: Sources) -> Iterator[tuple[str, str]]:
        started.set()
        yield "sys.thread", threading.current_thread().name

    facts = made_of(tmp_path, Fact("one", find))
    facts.when_complete(lambda _: None)
    assert not started.is_set()
    assert not facts.complete
    assert facts.tags(LONG_SECONDS)["sys.thread"] == "sysmetrics-facts"


class Gate:
    """A fact that completes when the test opens it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.fact = Fact("gate", self._find, quick=False)

    def _find(self, sources: Sources) -> Iterator[tuple[str, str]]:
        assert self.opened.wait(LONG_SECONDS)
        yield "sys.gate", "open"


def test_a_slow_fact_does_not_delay_others(tmp_path: Path) -> None:
    gate = Gate()
    facts = made_of(tmp_path, only("one", ("sys.one", "1")), gate.fact)
    delivered = threading.Event()
    complete: list[dict[str, str]] = []
    facts.when_complete(complete.append)
    facts.when_complete(lambda _: delivered.set())
    tags = facts.tags(wait_seconds=0.05)
    assert "sys.gate" not in tags
    assert not facts.complete
    gate.opened.set()
    assert delivered.wait(LONG_SECONDS)
    assert facts.complete
    assert complete == [{"sys.one": "1", "sys.gate": "open", "sys.disk_free_gb": "42.34"}]


@pytest.mark.heavy
def test_only_the_first_calls_wait(tmp_path: Path) -> None:
    gate = Gate()
    facts = made_of(tmp_path, gate.fact)
    facts.tags(wait_seconds=0.05)
    with Stalls() as stalls:
        started = time.monotonic()
        for _ in range(100):
            facts.tags(wait_seconds=0.1)
        took = time.monotonic() - started - stalls.seconds
    assert took < 100 * 0.1 / 2
    gate.opened.set()
    assert facts.tags(LONG_SECONDS)["sys.gate"] == "open"


def test_when_complete_calls_immediately_if_complete(tmp_path: Path) -> None:
    facts = linux_facts(tmp_path)
    facts.tags(LONG_SECONDS)
    answers: list[dict[str, str]] = []
    facts.when_complete(answers.append)
    assert answers[0]["sys.gpu"] == "None"


def test_a_failing_listener_does_not_affect_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(tags: dict[str, str]) -> NoReturn:
        raise RuntimeError(str(len(tags)))

    facts = linux_facts(tmp_path)
    delivered = threading.Event()
    facts.when_complete(broken)
    facts.when_complete(lambda _: delivered.set())
    facts.tags(LONG_SECONDS)
    assert delivered.wait(LONG_SECONDS)
    assert "listener for the facts about this host failed" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="the tool is a script for a POSIX shell; Windows has none")
def test_a_hanging_nvidia_smi_does_not_delay_tags(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n/bin/sleep 300 &\nwait\n")
    tool.chmod(0o755)
    run = Commands({"PATH": str(tool.parent)}, budget_seconds=0.05)
    host = machine(tmp_path, LINUX_FILES, environ={"PATH": str(tool.parent)})
    facts = HostFacts(host, system=linux, run=run)
    delivered = threading.Event()
    complete: list[dict[str, str]] = []
    facts.when_complete(complete.append)
    facts.when_complete(lambda _: delivered.set())
    started = time.monotonic()
    facts.tags(wait_seconds=0.05)
    assert time.monotonic() - started < LONG_SECONDS
    assert delivered.wait(LONG_SECONDS)
    assert complete[0]["sysmetrics.error"] == "gpu: nvidia-smi did not finish within 0.05 s"
    assert "sys.gpu" not in complete[0]
    assert complete[0]["sys.cpu_cores"] == "2"


@pytest.mark.parametrize(
    ("answer", "clause"),
    [
        (CommandTimeout("sysctl did not answer within 3 s"), "cpu: sysctl did not answer within 3 s"),
        (CommandMissing("sysctl is not installed"), "cpu: sysctl is not installed"),
    ],
)
def test_a_cpu_without_a_model_is_its_architecture(tmp_path: Path, answer: Exception, clause: str) -> None:
    run = tools(sysctl=answer, system_profiler=printed("system_profiler/no_gpu.json"))
    tags = HostFacts(machine(tmp_path), system=macos, run=run).tags(LONG_SECONDS)
    assert tags["sys.cpu"]
    assert clause in tags["sysmetrics.error"]
    assert tags["sys.gpu"] == "None"


def test_without_a_thread_quick_facts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError(f"can't start new thread {thread.name}")

    gate = Gate()
    facts = made_of(tmp_path, only("one", ("sys.one", "1")), gate.fact)
    with monkeypatch.context() as at_shutdown:
        at_shutdown.setattr(threading.Thread, "start", refuse)
        assert facts.tags() == {
            "sys.one": "1",
            "sys.disk_free_gb": "42.34",
            "sysmetrics.error": "gate: no thread could be started",
        }
        assert facts.tags()["sys.one"] == "1"
    assert not facts.complete
    gate.opened.set()
    complete = {"sys.one": "1", "sys.gate": "open", "sys.disk_free_gb": "42.34"}
    assert facts.tags(LONG_SECONDS) == complete


def test_tags_do_not_reveal_the_environment(tmp_path: Path) -> None:
    secret = "a-secret-that-nobody-may-see"
    environ = {
        "AWS_SECRET_ACCESS_KEY": secret,
        "USER": secret,
        "DASK_SCHEDULER_ADDRESS": f"tcp://u:{secret}@h",
    }
    host = machine(tmp_path, LINUX_FILES, environ=environ)
    tags = HostFacts(host, system=linux, run=tools()).tags(LONG_SECONDS)
    assert secret not in "".join(tags.values())


@pytest.mark.heavy
def test_quick_facts_start_no_process() -> None:
    """`platform.platform()` starts `uname -p`, and `file` on a Mac; our code must not."""
    program = (
        "import sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, args: started.append(args) if event in "
        "('subprocess.Popen', 'os.system', 'os.posix_spawn', 'os.exec') else None)\n"
        "from mlflow_sysmetrics.facts import HostFacts\n"
        "from mlflow_sysmetrics.facts.fact_list import FACTS\n"
        "from mlflow_sysmetrics.machine.host import Host\n"
        "facts = HostFacts(Host(), run=lambda command: '', facts=[fact for fact in FACTS if fact.quick])\n"
        "facts.tags(30.0)\n"
        "assert facts.complete and not started, started\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_gpus_are_found_last() -> None:
    assert [fact.name for fact in FACTS if not fact.quick] == [FACTS[-1].name] == ["gpu"]


@pytest.mark.heavy
def test_the_import_starts_no_thread_and_loads_neither_mlflow_nor_nvml() -> None:
    program = (
        "import sys, threading, mlflow_sysmetrics.facts\n"
        "assert threading.active_count() == 1\n"
        "assert not {'mlflow', 'pynvml', 'torch', 'winreg'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_facts_are_one_object_per_process() -> None:
    assert host_facts() is host_facts()


def test_cached_tags_are_cheap() -> None:
    """The limit allows milliseconds for a loaded machine; a process or a file per call would take longer."""
    facts = host_facts()
    facts.tags(LONG_SECONDS)
    assert facts.complete
    durations = []
    for _ in range(50):
        started = time.perf_counter()
        facts.tags()
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.0001


def test_a_limit_that_is_changed_or_lifted_live_shows_in_the_next_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = {
        "proc/self/cgroup": "0::/job\n",
        "proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/job/cgroup.controllers": "cpu memory\n",
    }
    limits = {"sys/fs/cgroup/job/memory.max": "4000000000\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}
    host = machine(tmp_path, {**LINUX_FILES, **group, **limits})
    facts = HostFacts(host, system=linux, run=tools())
    moment = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(fact_list, "time", moment)

    def shown() -> tuple[str | None, str | None]:
        tags = facts.tags(LONG_SECONDS)
        return tags.get("sys.memory_limit_gb"), tags.get("sys.cpu_cores_effective")

    assert shown() == shown() == ("4.00", "1.5")
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("2000000000\n")
    (tmp_path / "sys/fs/cgroup/job/cpu.max").write_text("50000 100000\n")
    assert shown() == ("4.00", "1.5")  # it looks once a second
    moment.monotonic = lambda: 1.0
    assert shown() == ("2.00", "0.5")
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("max\n")
    moment.monotonic = lambda: 2.0
    assert shown() == (None, "0.5")
    assert facts.tags()["sys.memory_gb"] == "16.38"


def test_while_changed_limits_do_not_answer_the_known_tags_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    answers = threading.Event()

    def find(sources: Sources) -> Iterator[tuple[str, str]]:
        asked.append(1)
        assert len(asked) == 1 or answers.wait(LONG_SECONDS)
        yield "sys.limit", str(len(asked))

    facts = made_of(tmp_path, Fact("limit", find, limit_tag="sys.limit"))
    assert facts.tags(LONG_SECONDS)["sys.limit"] == "1"
    changes = iter([True])
    monkeypatch.setattr(facts._limits, "have_changed", lambda: next(changes, False))
    assert facts.tags(0)["sys.limit"] == "1"
    answers.set()
    eventually(lambda: facts.tags()["sys.limit"] == "2")
