"""Facts of Macs, from recorded answers; every OS module is tested on every OS."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from facts_machines import machine, printed, tools

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import macos
from mlflow_sysmetrics.facts.values import Gpu
from mlflow_sysmetrics.machine.command import CommandFailed, CommandTimeout


def test_the_cpu_is_what_sysctl_says(tmp_path: Path) -> None:
    assert macos.cpu_model(machine(tmp_path), tools(sysctl="Apple M2 Max\n")) == "Apple M2 Max"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("\n", "sysctl printed nothing"),
        (CommandFailed("sysctl", 1, ""), "sysctl failed with exit code 1"),
        (CommandTimeout("sysctl did not answer within 3 s"), "sysctl did not answer"),
    ],
)
def test_a_sysctl_that_does_not_answer(tmp_path: Path, answer: str | Exception, reason: str) -> None:
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
def test_gpus_of_recorded_macs(tmp_path: Path, recorded: str, gpus: tuple[Gpu, ...]) -> None:
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
def test_what_is_no_list_of_displays(text: str) -> None:
    with pytest.raises(Unavailable, match="system_profiler did not print a list of displays"):
        macos.parse_displays(text)


@pytest.mark.parametrize(
    "answer",
    [
        CommandFailed("system_profiler", 1, ""),
        CommandTimeout("system_profiler did not answer within 3 s"),
    ],
)
def test_a_system_profiler_that_fails(tmp_path: Path, answer: Exception) -> None:
    with pytest.raises(Unavailable, match=r"^system_profiler "):
        macos.displays(machine(tmp_path), tools(system_profiler=answer))


def test_a_missing_system_profiler_is_not_none(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="system_profiler is not installed"):
        macos.displays(machine(tmp_path), tools())


def test_a_size_in_other_words_is_unknown() -> None:
    text = '{"SPDisplaysDataType": [{"sppci_model": "X", "spdisplays_vram": "plenty"}]}'
    assert macos.parse_displays(text) == (Gpu(name="X"),)


def test_cores_and_memory_are_this_machines(tmp_path: Path) -> None:
    cores = macos.cores(machine(tmp_path))
    assert cores.effective == cores.logical >= 1
    assert macos.memory(machine(tmp_path)).total_bytes > 0


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac the name is known")
def test_elsewhere_it_is_not_macos(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not macOS"):
        macos.os_name(machine(tmp_path))


def test_macs_are_neither_containers_nor_clouds(tmp_path: Path) -> None:
    assert (macos.container(machine(tmp_path)), macos.cloud(machine(tmp_path))) == (None, None)
