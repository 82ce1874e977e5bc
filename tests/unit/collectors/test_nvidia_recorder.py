"""What is recorded from a real card: calls with answers or errors, and nothing that identifies card or user."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from nvidia_machines import hopper, tick
from stub_library import NUMBERS, Library

from fake_gpu import ERRORS, UNSUPPORTED
from fake_nvml import FakeNvml, Process
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.machine.host import Host
from nvml_recorder import Recorder, described, differences


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The calls of both collectors to the real bindings, on top of a library in Python."""
    library = Library("nvmlDeviceGetTemperatureV")
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setitem(NUMBERS, "nvmlDeviceGetCurrentClocksEventReasons", 0)
    recorder = Recorder(pynvml)
    for kind in (Nvidia, NvidiaProfile):
        one = kind(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder))
        for now in range(3):
            library.events = now
            tick(one, now)
    return recorder


def test_every_call_of_the_real_bindings_is_recorded(real: Recorder, tmp_path: Path) -> None:
    recorder = real
    told = json.loads(recorder.write(tmp_path / "card", driver="570").read_text())
    assert told["driver"] == "570"
    calls = {call["function"]: call for call in told["calls"]}
    assert calls["nvmlDeviceGetUUID"]["answer"] == "GPU-00000000-0000-0000-0000-000000000000"
    assert calls["nvmlDeviceGetUtilizationRates"]["answer"] == {"gpu": 87, "memory": 41}
    assert calls["nvmlDeviceGetUtilizationRates"]["times"] == 6  # by two collectors
    assert calls["nvmlDeviceGetTemperatureV"]["error"] == 13
    assert calls["nvmlDeviceGetComputeRunningProcesses"]["answer"][0]["pid"] == "self"
    assert calls["nvmlDeviceGetFieldValues"]["answer"][0]["value"]["ullVal"] == 70
    assert [one["value"] for one in calls["nvmlGpmMetricsGet"]["answer"]["metrics"]][:1] == [40.0]
    assert calls["nvmlDeviceGetHandleByIndex"] == calls["nvmlDeviceGetHandleByIndex"] | {
        "answer": None,
        "arguments": [0],
        "error": None,
    }
    assert all(call["microseconds"] > 0 for call in told["calls"])


def test_a_recording_names_no_process_and_no_card(tmp_path: Path) -> None:
    uuid = "GPU-12345678-1234-1234-1234-123456789abc"
    recorder = Recorder(FakeNvml(hopper(uuid, processes=[Process(os.getpid(), 5), Process(4321, 6)])))
    tick(Nvidia(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder)))
    text = recorder.write(tmp_path).read_text()
    assert uuid not in text
    assert "4321" not in text
    assert str(os.getpid()) not in text


def test_the_calls_of_a_tick_can_be_replayed() -> None:
    nvml = FakeNvml(hopper())
    recorder = Recorder(nvml)
    one = Nvidia(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder))
    tick(one)
    asked = nvml.calls.total()
    recorder.replay[-1]()
    assert nvml.calls.total() == asked + 1


def test_a_faithful_fake_has_no_differences(real: Recorder) -> None:
    assert differences(real.calls, described(real.calls)) == []


def memory(*, of_version_2: bool) -> Callable[..., Any]:
    """Returns an answer with a member that the other version of the structure lacks."""

    def ask(handle: Any, version: int | None = None) -> Any:
        del handle
        members = {"total": 80 * 10**9, "used": 10**9}
        odd = "reserve" if of_version_2 else "reserved"
        return SimpleNamespace(**members | ({odd: 1} if (version is not None) is of_version_2 else {}))

    return ask


def answers(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def refuses(code: int) -> Callable[..., Any]:
    def ask(*_: Any) -> Any:
        raise ERRORS[code]

    return ask


@pytest.mark.parametrize(
    ("function", "ask", "says"),
    [
        ("nvmlDeviceGetPowerUsage", answers(350), "350 of the fake is beyond 1000"),
        ("nvmlDeviceGetPowerUsage", answers(350_000.0), "float instead of int"),
        ("nvmlDeviceGetPowerUsage", refuses(3), "the fake refuses it with 3"),
        ("nvmlDeviceGetTotalEnergyConsumption", answers("1"), "str instead of int"),
        ("nvmlDeviceGetMemoryInfo", memory(of_version_2=True), "reserve: the device has no such member"),
        ("nvmlDeviceGetUtilizationRates", answers(SimpleNamespace(gpu=870, memory=1)), "870 of the fake"),
        ("nvmlDeviceGetUtilizationRates", answers((87, 41)), "tuple instead of dict"),
        ("nvmlDeviceGetRemappedRows", answers((0, 0, 0)), "3 values instead of 4"),
        ("nvmlDeviceGetRemappedRows", answers([0, 0, 0, 0]), "list instead of tuple"),
        ("nvmlDeviceGetTotalEccErrors", answers(None), "NoneType instead of int"),
        ("nvmlDeviceGetUUID", answers(b"GPU-1"), "bytes instead of str"),
        ("nvmlDeviceGetCurrentClocksEventReasons", answers([0]), "list instead of int"),
        ("nvmlDeviceGetComputeRunningProcesses", answers([SimpleNamespace(id=1)]), "id: the device has no"),
        ("nvmlDeviceGetFieldValues", answers([]), "0 values instead of"),
        ("nvmlEventSetWait_v2", answers(SimpleNamespace(gpu=1)), "gpu: the device has no such member"),
        ("nvmlEventSetCreate", answers(5), "instead of Pointer"),
        ("nvmlGpmQueryDeviceSupport", answers(1), "int instead of dict"),
        ("nvmlGpmMetricsGet", refuses(2), "the fake refuses it with 2"),
    ],
)
def test_a_different_answer_of_the_fake_is_reported(
    real: Recorder, function: str, ask: Callable[..., Any], says: str
) -> None:
    fake = described(real.calls)
    setattr(fake, function, ask)
    # Calls that pass earlier answers would fail otherwise.
    calls = [call for call in real.calls if function == call.function or function != "nvmlEventSetCreate"]
    found = differences(calls, fake)
    assert any(one.startswith(function) and says in one for one in found), found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": 61_000}, "nvmlDeviceGetTemperature: 61000 of the fake"),
        ({"sm_clock": UNSUPPORTED}, "nvmlDeviceGetClockInfo: the fake refuses it with 3"),
        ({"gpm": {2: 40.0}}, "nvmlGpmMetricsGet.metrics[20]: the fake refuses it with 3"),
        ({"gpm": {2: 4000.0, 20: 1.0}}, "nvmlGpmMetricsGet.metrics.value: 4000.0 of the fake"),
        ({"fields": {74: 0, 75: 0, 77: 0}}, "nvmlDeviceGetFieldValues[82]: the fake refuses it with 3"),
        ({"fields": {74: 0, 75: 0, 77: 0, 82: 500}}, "value.ullVal: 500 of the fake"),
    ],
)
def test_a_changed_device_description_is_reported(real: Recorder, change: dict[str, Any], says: str) -> None:
    fake = described(real.calls)
    for name, value in change.items():
        setattr(fake.gpus[0], name, value)
    found = differences(real.calls, fake)
    assert any(says in one for one in found), found


def test_an_error_the_fake_cannot_raise_is_reported(real: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeNvml, "NVMLError_FunctionNotFound")  # as the stub answers for one function
    assert differences(real.calls, described(real.calls)) == [
        "nvmlDeviceGetTemperatureV: the fake has no error 13"
    ]


def test_a_function_the_fake_lacks_is_reported(real: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetClockInfo")
    assert "nvmlDeviceGetClockInfo: the fake lacks it" in differences(real.calls, described(real.calls))


def test_an_answer_in_another_unit_is_reported(real: Recorder) -> None:
    for call in real.calls:
        if call.function == "nvmlDeviceGetPowerUsage":
            call.returned = 350
    assert differences(real.calls, described(real.calls)) == [
        "nvmlDeviceGetPowerUsage: 350 of the device is beyond 1000.0 to 3000000.0"
    ]
