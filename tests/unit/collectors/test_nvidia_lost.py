"""A GPU that leaves the bus and returns, and the critical errors that announce it."""

from __future__ import annotations

import logging

import pytest
from nvidia_machines import (
    CARD,
    GPM,
    HOPPER,
    OTHER_SLICE,
    SLICE,
    ampere,
    collector,
    hopper,
    host,
    sliced,
    tick,
)

from fake_gpu import ERRORS, UNSUPPORTED, FakeGpu
from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.daemon.sampling.probe import Probe

OTHER = "GPU-other"
XID = "0_xid_errors"


def ordinals(one: Collector, now: float) -> set[str]:
    """Returns the devices that answer; a lost one may still report errors."""
    return {key[0] for key in tick(one, now) if not key.endswith("_xid_errors")}


def test_a_lost_device_affects_no_other_and_keeps_its_ordinal() -> None:
    nvml = FakeNvml(gpu := hopper(), hopper(OTHER))
    one = collector(nvml)
    whole = tick(one, 0).keys()
    gpu.lost = True
    assert ordinals(one, 1) == {"1"}
    assert one.gaps == ("gpu_0: GPU is lost",)
    gpu.return_to_the_bus()
    tick(one, 2)
    assert tick(one, 3).keys() == whole | {"0_throttled_percentage", "1_throttled_percentage"}
    assert not one.gaps


def test_gaps_of_a_device_remain_while_it_is_lost() -> None:
    """So that only the loss and the return are reported as changes."""
    nvml = FakeNvml(gpu := ampere(ecc_corrected=UNSUPPORTED))
    one = collector(nvml)
    tick(one, 0)
    gaps = one.gaps
    gpu.lost = True
    tick(one, 1)
    assert one.gaps == ("gpu_0: GPU is lost", *gaps)
    gpu.return_to_the_bus()
    tick(one, 2)
    assert one.gaps == gaps


def test_each_loss_and_each_return_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    nvml = FakeNvml(gpu := hopper(), hopper(OTHER))
    probe = Probe(Nvidia, host(nvml), transparent=True)
    for now in range(1300):  # searched for at least every five minutes
        if now in {100, 700}:
            gpu.lost = True
        if now in {400, 1000}:
            gpu.return_to_the_bus()
        probe.read(now)
    assert [
        f"{record.levelname} {record.message.partition('gpu (nvidia)')[2]}" for record in caplog.records
    ] == [
        "WARNING : gpu_0: GPU is lost.",
        "INFO  is ok again.",
    ] * 2


@pytest.mark.heavy
def test_the_loss_of_many_slices_is_logged_in_two_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    cards = [
        hopper(
            f"GPU-{card}",
            slices=tuple(FakeGpu("1g", f"MIG-{card}-{place}", 10**10, gpm=GPM) for place in range(7)),
        )
        for card in range(8)
    ]
    probe = Probe(Nvidia, host(FakeNvml(*cards)), transparent=True)
    for now in range(50):
        probe.read(now)
    for card in cards:
        card.lost = True
    for now in range(50, 100):
        probe.read(now)
    start, loss = [record.message.partition("gpu (nvidia): ")[2] for record in caplog.records]
    assert start == (
        "gpu_0 to gpu_55 power, energy: reported for the whole GPU, not for a slice; "
        "gpu_0 to gpu_55 ECC errors, remapped rows: not supported by this device."
    )
    assert loss == "gpu_0 to gpu_55: GPU is lost."


def test_the_search_for_a_lost_device_backs_off() -> None:
    nvml = FakeNvml(gpu := hopper(), hopper(OTHER))
    one = collector(nvml)
    tick(one, 0)
    gpu.lost = True
    for now in range(1, 600):
        tick(one, now)
    assert nvml.calls["nvmlDeviceGetHandleByUUID"] == 9


def test_a_handle_from_before_a_reset_is_replaced() -> None:
    """Old handles are rejected as lost although the device has long returned."""
    nvml = FakeNvml(gpu := hopper())
    one = collector(nvml)
    tick(one, 0)
    gpu.return_to_the_bus()
    assert not tick(one, 1).keys() - {XID}
    assert "0_temperature_celsius" in tick(one, 2)


@pytest.mark.parametrize("code", [2, 6, 999], ids=["invalid argument", "not found", "unknown"])
def test_a_device_that_stops_answering_is_searched_for(code: int) -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml)
    whole = tick(one, 0)
    for function in [name for name in dir(nvml) if name.startswith("nvmlDevice")]:
        if function != "nvmlDeviceGetHandleByUUID":
            nvml.fail(function, code, HOPPER)
    nvml.fail("nvmlEventSetWait_v2", code)
    assert tick(one, 1).keys() <= {"0_ecc_errors", "0_remapped_rows"}, "which are read seldom"
    assert one.gaps[0].startswith("gpu_0: ")
    nvml.faults.clear()
    assert tick(one, 3).keys() >= whole.keys()


def test_a_library_shut_down_elsewhere_is_restarted() -> None:
    nvml = FakeNvml(hopper())
    one = collector(nvml)
    whole = tick(one, 0)
    for function in set(nvml.calls) - {"nvmlInit"}:
        nvml.fail(function, 1)
    assert not tick(one, 1)
    started = nvml.calls["nvmlInit"]
    nvml.faults.clear()
    assert tick(one, 2).keys() >= whole.keys()
    assert nvml.calls["nvmlInit"] == started + 1


def test_a_device_lost_from_the_start_is_read_once_it_returns() -> None:
    nvml = FakeNvml(gpu := hopper(), hopper(OTHER))
    gpu.lost = True
    one = collector(nvml)
    assert ordinals(one, 0) == {"1"}
    assert one.gaps[-1] == "gpu_0: GPU is lost"
    gpu.return_to_the_bus()
    assert ordinals(one, 1) == {"0", "1"}


def test_slices_are_lost_and_return_with_their_gpu() -> None:
    nvml = FakeNvml(gpu := sliced(), hopper(OTHER))
    one = collector(nvml)
    assert ordinals(one, 0) == {"0", "1", "2"}
    gpu.lost = True
    assert ordinals(one, 1) == {"2"}
    gpu.return_to_the_bus()
    assert ordinals(one, 2) == {"0", "1", "2"}


def test_counters_continue_after_a_reset() -> None:
    nvml = FakeNvml(gpu := hopper(energy_millijoules=7_200_000))
    one = collector(nvml)
    tick(one, 0)
    gpu.energy_millijoules = 9_000_000
    assert tick(one, 1)["0_energy_watt_hours"] == 0.5
    gpu.return_to_the_bus()
    gpu.energy_millijoules = 1_800_000  # since the driver was reloaded
    tick(one, 2)
    assert "0_energy_watt_hours" not in tick(one, 3)  # until the next reading confirms it
    gpu.energy_millijoules = 3_600_000
    assert tick(one, 4)["0_energy_watt_hours"] == 1


def test_errors_are_counted_from_the_first_tick() -> None:
    nvml = FakeNvml(gpu := hopper(), other := hopper(OTHER))
    one = collector(nvml)
    assert tick(one, 0)[XID] == 0
    nvml.events += [(gpu, 2**32 - 1), (other, 2**32 - 1), (gpu, 2**32 - 1)]
    found = tick(one, 1)
    assert (found[XID], found["1_xid_errors"]) == (2, 1)
    assert tick(one, 2)[XID] == 2


def test_reading_errors_does_not_block() -> None:
    """The fake rejects any timeout but 0; the set of all devices is queried once per tick."""
    nvml = FakeNvml(hopper(), hopper(OTHER))
    one = collector(nvml)
    tick(one, 0)
    assert nvml.calls["nvmlEventSetWait_v2"] == 1
    assert nvml.registered == {HOPPER, OTHER}


def test_many_errors_do_not_delay_a_tick() -> None:
    nvml = FakeNvml(gpu := hopper())
    one = collector(nvml)
    nvml.events += [(gpu, 2**32 - 1)] * 100
    assert tick(one, 0)[XID] == 64
    assert tick(one, 1)[XID] == 100


def test_the_error_of_a_gpu_leaving_the_bus_is_reported() -> None:
    nvml = FakeNvml(gpu := hopper(), hopper(OTHER))
    one = collector(nvml)
    tick(one, 0)
    nvml.events.append((gpu, 2**32 - 1))
    gpu.lost = True
    assert tick(one, 1)[XID] == 1


def test_an_event_set_recovers_for_others_after_a_gpu_is_lost() -> None:
    """NVML fails the wait for all GPUs of a set as soon as one of them is lost."""
    nvml = FakeNvml(gpu := hopper(), other := hopper(OTHER))
    one = collector(nvml)
    whole = {key for key in tick(one, 0) if key[0] == "1"}
    gpu.lost = True
    nvml.fail("nvmlEventSetWait_v2", 15)
    assert whole <= tick(one, 1).keys() | {"1_xid_errors"}
    nvml.faults.clear()  # the set with the lost GPU is freed
    nvml.registered.clear()
    nvml.events.append((other, 2**32 - 1))
    for now in range(2, 6):
        found = tick(one, now)
    assert found["1_xid_errors"] == 1
    assert nvml.registered == {OTHER}
    assert len(nvml.live) == 1


def test_an_error_of_the_gpu_counts_for_all_its_slices() -> None:
    nvml = FakeNvml(gpu := sliced())
    one = collector(nvml, Nvidia, CUDA_VISIBLE_DEVICES=f"{SLICE},{OTHER_SLICE}")
    tick(one, 0)
    nvml.events += [(gpu, 1), (gpu, 2**32 - 1)]
    found = tick(one, 1)
    assert (found[XID], found["1_xid_errors"]) == (2, 1)
    assert nvml.registered == {CARD}


def test_without_events_everything_else_is_read() -> None:
    nvml = FakeNvml(hopper())
    nvml.faults["nvmlEventSetCreate", None] = ERRORS[3]("Not Supported")
    one = collector(nvml)
    assert XID not in tick(one)
    assert one.gaps == ("gpu_0 XID errors: not supported by this device",)
