"""What is kept of a real card: the calls, their answers or errors, and nothing that names the card or a user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pynvml
import pytest
from nvidia_machines import hopper, tick
from stub_library import Library

from fake_nvml import FakeNvml, Process
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.host import Host
from nvml_recorder import Recorder


def test_every_call_of_the_real_bindings_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", Library("nvmlDeviceGetTemperatureV"))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    recorder = Recorder(pynvml)
    for kind in (Nvidia, NvidiaProfile):
        one = kind(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder))
        for now in range(3):
            tick(one, now)
    told = json.loads(recorder.write(tmp_path / "card", driver="570").read_text())
    assert told["driver"] == "570"
    calls = {call["function"]: call for call in told["calls"]}
    assert calls["nvmlDeviceGetUUID"]["answer"] == "GPU-00000000-0000-0000-0000-000000000000"
    assert calls["nvmlDeviceGetUtilizationRates"]["answer"] == {"gpu": 87, "memory": 41}
    assert calls["nvmlDeviceGetUtilizationRates"]["times"] == 3
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


def test_no_process_and_no_card_is_named(tmp_path: Path) -> None:
    uuid = "GPU-12345678-1234-1234-1234-123456789abc"
    recorder = Recorder(FakeNvml(hopper(uuid, processes=[Process(os.getpid(), 5), Process(4321, 6)])))
    tick(Nvidia(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder)))
    text = recorder.write(tmp_path).read_text()
    assert uuid not in text
    assert "4321" not in text
    assert str(os.getpid()) not in text


def test_the_calls_of_a_tick_can_be_made_again() -> None:
    nvml = FakeNvml(hopper())
    recorder = Recorder(nvml)
    one = Nvidia(Host(root=Path("/nowhere"), environ={}, load_nvml=lambda: recorder))
    tick(one)
    asked = nvml.calls.total()
    recorder.replay[-1]()
    assert nvml.calls.total() == asked + 1
