"""The GPU of Apple silicon, from property lists printed by ioreg."""

from __future__ import annotations

import plistlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.collectors import apple_gpu
from mlflow_sysmetrics.collectors.apple_gpu import Accelerator, AppleGpu, parse_ioreg
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.command import CommandMissing
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuOrdinals
from mlflow_sysmetrics.runtime.background_reading import Reading

PRINTED = Path(__file__).parents[2] / "tool_output" / "ioreg"
BUSY, MEMORY = "gpu_0_utilization_percentage", "gpu_0_memory_usage_megabytes"


class AtOnce:
    """Replaces `BackgroundReading`: reads in the calling thread once the test declares a reading complete."""

    age = 0.0
    come = True

    def __init__(self, name: str, read: Callable[[], Any], *, rest_seconds: float) -> None:
        del name, rest_seconds
        self._read = read
        self._last: Reading[Any] | None = None
        self._number = 0

    def latest(self) -> Reading[Any] | None:
        if self.come:
            self._number += 1
            self._last = Reading(self._read(), self._number, self.age)
        return self._last


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> type[AtOnce]:
    made = type("AtOnce", (AtOnce,), {})
    monkeypatch.setattr(apple_gpu, "BackgroundReading", made)
    return made


def printed(name: str) -> str:
    return (PRINTED / f"{name}.plist").read_text()


def mac(text: str, **more: Any) -> Host:
    def run(command: Sequence[str]) -> str:
        assert command[0] == "/usr/sbin/ioreg"
        return text

    return Host(platform="darwin", run=run, **more)


def gpu(**statistics: object) -> dict[str, object]:
    return {"IOClass": "AGXAcceleratorG16G", "PerformanceStatistics": statistics}


def plist(*entries: object) -> str:
    return plistlib.dumps(list(entries)).decode()


def both(busy: object, memory: object) -> dict[str, object]:
    return gpu(**{"Device Utilization %": busy, "In use system memory": memory})


def said(collector: AppleGpu) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(0.0)}


@pytest.mark.parametrize(
    ("name", "utilization", "memory_bytes"),
    [("m1_pro", 2, 340_983_808), ("m2", 4, 632_307_712), ("m3_pro", 12, 1_142_489_088)],
)
def test_parses_the_output_of_a_mac(name: str, utilization: int, memory_bytes: int) -> None:
    assert parse_ioreg(printed(name)) == (Accelerator(utilization, memory_bytes),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        plist(),
        plist({"IOClass": "AppleParavirtGPU"}),
        plist("AGX"),
        plist({"IOClass": 5}),
        "<plist/>",
    ],
)
def test_a_mac_without_an_apple_gpu_has_none(text: str) -> None:
    with pytest.raises(Unavailable, match="ioreg lists no Apple GPU"):
        parse_ioreg(text)


def test_the_gpus_of_an_intel_mac_are_not_shown() -> None:
    with pytest.raises(Unavailable, match="ioreg lists no Apple GPU"):
        parse_ioreg(printed("intel_mac"))


@pytest.mark.parametrize(
    "text",
    [
        "+-o AGXAcceleratorG13X",
        "<plist><array>",
        "\ufffd\x00",
        "<plist><integer>x</integer></plist>",
        "<plist><date>yesterday</date></plist>",
        '<?xml version="1.0" encoding="bplist00"?><plist/>',
        printed("m1_pro")[:900],
        printed("m1_pro").replace("<key>", "", 1),
    ],
)
def test_text_that_is_not_a_property_list_is_rejected(text: str) -> None:
    with pytest.raises(Unavailable, match="ioreg did not print a property list"):
        parse_ioreg(text)


@pytest.mark.parametrize("value", [-1, 101, 2.5, "2", True, [], 2**63])
def test_an_invalid_utilization_is_unknown(value: object) -> None:
    assert parse_ioreg(plist(both(value, 1))) == (Accelerator(None, 1),)


@pytest.mark.parametrize("value", [-1, 2.5, "2", True])
def test_an_invalid_memory_size_is_unknown(value: object) -> None:
    assert parse_ioreg(plist(both(1, value))) == (Accelerator(1, None),)


@pytest.mark.parametrize("entry", [{"IOClass": "AGXAccelerator"}, {**gpu(), "PerformanceStatistics": "none"}])
def test_a_gpu_without_statistics_has_no_values(entry: dict[str, object]) -> None:
    assert parse_ioreg(plist(entry)) == (Accelerator(None, None),)


def test_a_bare_entry_is_one_gpu() -> None:
    assert parse_ioreg(plistlib.dumps(both(1, 2)).decode()) == (Accelerator(1, 2),)


def test_allocated_memory_does_not_replace_memory_in_use() -> None:
    assert parse_ioreg(plist(gpu(**{"Alloc system memory": 5}))) == (Accelerator(None, None),)


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_other_systems_have_no_ioreg(platform: str) -> None:
    with pytest.raises(Unavailable, match="this is not macOS"):
        AppleGpu(Host(platform=platform))


def test_hiding_all_gpus_hides_this_one() -> None:
    with pytest.raises(Unavailable, match="no GPU that this job may see"):
        AppleGpu(mac(printed("m2"), environ={"CUDA_VISIBLE_DEVICES": ""}))


@pytest.mark.usefixtures("at_once")
def test_selecting_all_gpus_includes_hidden_ones() -> None:
    assert said(AppleGpu(mac(printed("m2"), environ={"CUDA_VISIBLE_DEVICES": ""}, gpus="all")))


@pytest.mark.usefixtures("at_once")
def test_keys_and_units_match_other_vendors() -> None:
    collector = AppleGpu(mac(printed("m3_pro")))
    assert said(collector) == {BUSY: 12, MEMORY: 1142.489088}
    assert collector.gaps == ()


def test_an_answer_is_used_once(at_once: type[AtOnce]) -> None:
    collector = AppleGpu(mac(printed("m2")))
    assert said(collector)
    at_once.come = False
    assert said(collector) == {}
    at_once.come = True
    assert said(collector)


def test_waiting_for_ioreg_is_a_gap(at_once: type[AtOnce]) -> None:
    at_once.come = False
    collector = AppleGpu(mac(printed("m2")))
    assert said(collector) == {}
    assert collector.gaps == ("ioreg has not responded yet",)
    at_once.come = True
    assert said(collector)
    assert collector.gaps == ()


def test_an_answer_is_used_at_the_next_tick(at_once: type[AtOnce]) -> None:
    at_once.age = 3600.0
    assert said(AppleGpu(mac(printed("m2"))))


@pytest.mark.usefixtures("at_once")
def test_missing_values_are_absent_and_gaps() -> None:
    collector = AppleGpu(mac(plist(both(101, 7_000_000), {"IOClass": "AGXAcceleratorG13X"})))
    assert said(collector) == {MEMORY: 7}
    assert collector.gaps == (
        "gpu_0 utilization: not supported by this device",
        "gpu_1 utilization: not supported by this device",
        "gpu_1 memory usage: not supported by this device",
    )


@pytest.mark.usefixtures("at_once")
def test_gpus_of_other_vendors_come_first() -> None:
    ordinals = GpuOrdinals()
    ordinals.first("nvidia", 2)
    collector = AppleGpu(mac(printed("m2"), gpu_ordinals=ordinals))
    assert set(said(collector)) == {"gpu_2_utilization_percentage", "gpu_2_memory_usage_megabytes"}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("gpus", "shown", "gaps"),
    [
        ("visible", {"0", "1"}, ()),
        ("all", {"0", "1"}, ()),
        ("process", {"0", "1"}, ("macOS does not report which GPU the job uses: all are shown",)),
        ("1", {"1"}, ()),
        ("7", set(), ("MLFLOW_SYSMETRICS_GPUS: 7 matches none of this host's Apple GPUs",)),
    ],
)
def test_a_selection_applies_to_the_apple_gpu(gpus: str, shown: set[str], gaps: tuple[str, ...]) -> None:
    collector = AppleGpu(mac(plist(both(1, 1), both(2, 2)), gpus=gpus))
    assert {key.split("_")[1] for key in said(collector)} == shown
    assert collector.gaps == gaps


@pytest.mark.usefixtures("at_once")
def test_a_missing_ioreg_makes_it_unavailable() -> None:
    def run(command: Sequence[str]) -> str:
        raise CommandMissing(f"{command[0]} is not installed")

    collector = AppleGpu(Host(platform="darwin", run=run))
    with pytest.raises(Unavailable, match="ioreg is not installed"):
        said(collector)


def test_the_tool_runs_in_the_background() -> None:
    asked_by: list[str] = []

    def run(command: Sequence[str]) -> str:
        del command
        asked_by.append(threading.current_thread().name)
        return printed("m2")

    collector = AppleGpu(Host(platform="darwin", run=run))
    deadline = time.monotonic() + 60
    while not (found := said(collector)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert found == {BUSY: 4, MEMORY: 632.307712}
    assert asked_by == ["sysmetrics-ioreg"]
