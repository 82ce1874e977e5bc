"""Facts of Windows machines, from recorded tool output; every OS module is tested on every OS."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from facts_machines import machine, printed, tools

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import windows
from mlflow_sysmetrics.facts.values import Gpu
from mlflow_sysmetrics.machine.command import CommandFailed, CommandTimeout


class FakeRegistry:
    """Replaces winreg; has one value."""

    HKEY_LOCAL_MACHINE = object()

    def __init__(self, processor: str | None) -> None:
        self.processor = processor

    def OpenKey(self, root: object, path: str) -> contextlib.nullcontext[str]:
        assert root is self.HKEY_LOCAL_MACHINE
        return contextlib.nullcontext(path)

    def QueryValueEx(self, key: str, name: str) -> tuple[str, int]:
        if self.processor is None:
            raise FileNotFoundError
        assert (key, name) == (r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString")
        return self.processor, 1


def test_the_cpu_model_comes_from_the_registry() -> None:
    registry = FakeRegistry("13th Gen Intel(R) Core(TM) i7-13700K   ")
    assert windows.read_processor_name(registry) == "13th Gen Intel(R) Core(TM) i7-13700K"


def test_a_registry_without_the_name_gives_no_cpu_model() -> None:
    with pytest.raises(Unavailable, match="no ProcessorNameString"):
        windows.read_processor_name(FakeRegistry(None))


@pytest.mark.parametrize(
    ("recorded", "gpus"),
    [
        (
            "integrated_and_discrete",
            (
                Gpu(name="Intel(R) UHD Graphics 770", memory_bytes=2**30, driver="31.0.101.4502"),
                Gpu(name="NVIDIA GeForce RTX 3060", driver="31.0.15.5222"),
            ),
        ),
        ("single", (Gpu(name="NVIDIA GeForce GTX 1050", memory_bytes=2**31, driver="31.0.15.3713"),)),
        ("basic_display", ()),
        ("hyper_v_remote", ()),
    ],
)
def test_reads_the_gpus_of_recorded_machines(tmp_path: Path, recorded: str, gpus: tuple[Gpu, ...]) -> None:
    run = tools(powershell=printed(f"video_controller/{recorded}.json"))
    assert windows.video_controllers(machine(tmp_path), run).gpus == gpus


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("NVIDIA RTX Virtual Workstation", True),
        ("AMD Radeon(TM) Graphics", True),
        ("Qualcomm(R) Adreno(TM) X1-85 GPU", True),
        ("Parsec Virtual Display Adapter", False),
        ("VMware SVGA 3D", False),
        ("IddSampleDriver Device", False),
        ("ASPEED Graphics Family(WDDM)", False),
    ],
)
def test_display_only_adapters_are_not_gpus(name: str, counted: bool) -> None:
    assert bool(windows.parse_video_controllers(f'{{"Name": "{name}"}}')) is counted


@pytest.mark.parametrize("text", ["", "\ufffd\x00", "[7]", "7", '{"AdapterRAM": 1}', '[{"Name": null}]'])
def test_invalid_lists_of_video_controllers_are_rejected(text: str) -> None:
    with pytest.raises(Unavailable, match="PowerShell did not print a list of video controllers"):
        windows.parse_video_controllers(text)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"powershell": CommandFailed("powershell.exe", 1, "")}, "exit code 1"),
        ({"powershell": CommandTimeout("powershell.exe did not answer within 3 s")}, "within 3 s"),
        ({}, "not installed"),
    ],
)
def test_a_failing_powershell_is_a_problem(
    tmp_path: Path, answers: dict[str, Exception], reason: str
) -> None:
    with pytest.raises(Unavailable, match=reason):
        windows.video_controllers(machine(tmp_path), tools(**answers))


def test_powershell_is_not_searched_for_in_the_working_directory(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(command: Sequence[str]) -> str:
        asked.append(command[0])
        return "[]"

    windows.video_controllers(machine(tmp_path, environ={"SystemRoot": r"D:\Windows"}), run)
    assert asked == [r"D:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe"]


def test_cores_and_memory_are_those_of_this_machine(tmp_path: Path) -> None:
    cores = windows.cores(machine(tmp_path))
    assert cores.effective is not None
    assert 1 <= cores.effective <= cores.logical
    assert windows.memory(machine(tmp_path)).total_bytes > 0


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows they are known")
def test_other_systems_are_not_windows(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not Windows"):
        windows.cpu_model(machine(tmp_path), tools())
    with pytest.raises(Unavailable, match="not Windows"):
        windows.os_name(machine(tmp_path))


def test_windows_reports_neither_container_nor_cloud(tmp_path: Path) -> None:
    assert (windows.container(machine(tmp_path)), windows.cloud(machine(tmp_path))) == (None, None)


def test_a_controller_without_a_name_keeps_its_place() -> None:
    gpus = windows.parse_video_controllers('[{"Name": null}, {"Name": "NVIDIA T4"}]')
    assert [gpu.name for gpu in gpus] == ["unknown GPU", "NVIDIA T4"]
