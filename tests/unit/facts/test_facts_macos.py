"""Facts of Macs, from recorded tool output; every OS module is tested on every OS."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from facts_machines import machine, printed, tools

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import macos
from mlflow_sysmetrics.facts.values import Gpu
from mlflow_sysmetrics.machine.command import CommandFailed, CommandTimeout


def test_the_cpu_model_comes_from_sysctl(tmp_path: Path) -> None:
    assert macos.cpu_model(machine(tmp_path), tools(sysctl="Apple M2 Max\n")) == "Apple M2 Max"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("\n", "sysctl printed nothing"),
        (CommandFailed("sysctl", 1, ""), "sysctl failed with exit code 1"),
        (CommandTimeout("sysctl did not answer within 3 s"), "sysctl did not answer"),
    ],
)
def test_a_failing_sysctl_gives_no_cpu_model(tmp_path: Path, answer: str | Exception, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        macos.cpu_model(machine(tmp_path), tools(sysctl=answer))


@pytest.mark.parametrize(
    ("recorded", "gpus"),
    [
        ("m2_max", (Gpu(name="Apple M2 Max", unified=True),)),
        (
            "intel_macbook_two_gpus",
            (
                Gpu(name="Intel UHD Graphics 630", unified=True),
                Gpu(name="AMD Radeon Pro 5300M", memory_bytes=4 * 2**30),
            ),
        ),
        ("no_gpu", ()),
    ],
)
def test_reads_the_gpus_of_recorded_macs(tmp_path: Path, recorded: str, gpus: tuple[Gpu, ...]) -> None:
    run = tools(system_profiler=printed(f"system_profiler/{recorded}.json"))
    assert macos.displays(machine(tmp_path), run).gpus == gpus


@pytest.mark.parametrize(
    "text",
    [
        printed("system_profiler/no_section.json"),
        "",
        "\ufffd\x00",
        "[]",
        "null",
        '{"SPDisplaysDataType": [7]}',
        '{"SPDisplaysDataType": [{}]}',
    ],
)
def test_invalid_lists_of_displays_are_rejected(text: str) -> None:
    with pytest.raises(Unavailable, match="system_profiler did not print a list of displays"):
        macos.parse_displays(text)


@pytest.mark.parametrize(
    "answer",
    [
        CommandFailed("system_profiler", 1, ""),
        CommandTimeout("system_profiler did not answer within 3 s"),
    ],
)
def test_a_failing_system_profiler_is_a_problem(tmp_path: Path, answer: Exception) -> None:
    with pytest.raises(Unavailable, match=r"^system_profiler "):
        macos.displays(machine(tmp_path), tools(system_profiler=answer))


def test_a_missing_system_profiler_does_not_mean_no_gpus(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="system_profiler is not installed"):
        macos.displays(machine(tmp_path), tools())


def test_a_size_in_an_unknown_format_is_unknown() -> None:
    text = '{"SPDisplaysDataType": [{"sppci_model": "X", "spdisplays_vram": "plenty"}]}'
    assert macos.parse_displays(text) == (Gpu(name="X"),)


def test_cores_and_memory_are_those_of_this_machine(tmp_path: Path) -> None:
    cores = macos.cores(machine(tmp_path))
    assert cores.effective == cores.logical >= 1
    assert macos.memory(machine(tmp_path)).total_bytes > 0


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac the name is known")
def test_other_systems_are_not_macos(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not macOS"):
        macos.os_name(machine(tmp_path))


def test_a_mac_is_neither_container_nor_cloud(tmp_path: Path) -> None:
    assert (macos.container(machine(tmp_path)), macos.cloud(machine(tmp_path))) == (None, None)


def test_a_card_without_a_name_keeps_its_place() -> None:
    gpus = macos.parse_displays('{"SPDisplaysDataType": [{}, {"sppci_model": "Apple M2"}]}')
    assert [gpu.name for gpu in gpus] == ["unknown GPU", "Apple M2"]
