"""Intel GPUs: power from counters, load from the job's processes, and no series for unknown values."""

from __future__ import annotations

from pathlib import Path

import pytest
from drm_machine import card, machine, opens, samples
from small_machines import values

from mlflow_sysmetrics.collectors.drm.clients import DrmClient, parse_fdinfo
from mlflow_sysmetrics.collectors.drm.hwmon import EnergyCounter
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples
from mlflow_sysmetrics.collectors.intel_gpu_linux import EngineTime, IntelLinux
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

SLOT = "0000:03:00.0"
HWMON = "sys/class/drm/card0/device/hwmon/hwmon4"
LOAD = "gpu_0_utilization_percentage"
POWER, SHARE, ENERGY = (
    "gpu_0_power_usage_watts",
    "gpu_0_power_usage_percentage",
    "gpu_0_energy_watt_hours",
)


def arc(root: Path, driver: str = "i915", *, gpus: str = "visible", **sensors: object) -> Host:
    files = {f"{HWMON}/{name}": f"{value}\n" for name, value in {"name": driver, **sensors}.items()}
    return machine(root, card(SLOT, "0x8086\n", driver), files, gpus=gpus)


def put(root: Path, name: str, value: object) -> None:
    (root / HWMON / name).write_text(f"{value}\n")


def test_power_is_the_rate_of_the_energy_counter(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=5_000_000, power1_max=200_000_000))
    assert values(collector, 0) == {ENERGY: 0}
    put(tmp_path, "energy1_input", 305_000_000)
    found = samples(collector, 2)
    assert {key: sample.value for key, sample in found.items()} == {POWER: 150, SHARE: 75, ENERGY: 300 / 3600}
    assert found[POWER].span == 2


@pytest.mark.parametrize(
    "after",
    [
        10_000_000,  # the driver was reloaded
        9_000_000_000_000,  # 9 MW, as xe in Linux 6.16 reported for some cards
        "",
        -5,
    ],
)
def test_a_counter_that_jumps_gives_no_power(tmp_path: Path, after: object) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=500_000_000, temp1_input=40_000))
    values(collector, 0)
    put(tmp_path, "energy1_input", after)
    assert POWER not in values(collector, 1)


def test_energy_continues_after_a_counter_restarts(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=500_000_000))
    values(collector, 0)
    put(tmp_path, "energy1_input", 10_000_000)
    values(collector, 1)
    put(tmp_path, "energy1_input", 100_000_000)
    assert values(collector, 2)[ENERGY] == 90 / 3600


def test_a_counter_that_may_have_wrapped_gives_no_power(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=500_000_000, temp1_input=40_000))
    values(collector, 0)
    put(tmp_path, "energy1_input", 600_000_000)
    assert POWER not in values(collector, 263)


def test_energy_needs_a_sufficiently_old_reading(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=500_000_000))
    values(collector, 0)
    put(tmp_path, "energy1_input", 600_000_000)
    assert values(collector, 0.1) == {ENERGY: 0}


def test_a_counter_that_appears_late_counts_from_its_first_reading(tmp_path: Path) -> None:
    path = tmp_path / "energy"
    path.write_text("0\n")
    counter = EnergyCounter(str(path), GpuSamples(0, IntelLinux.metrics))
    assert list(counter.collect(0, None)) == []
    path.write_text("700\n")
    assert [sample.value for sample in counter.collect(1, None)] == [0]


def test_the_package_counter_replaces_a_card_counter_stuck_at_0(tmp_path: Path) -> None:
    host = arc(tmp_path, "xe", energy1_input=0, energy2_input=5_000_000, power2_max=100_000_000, power1_max=1)
    collector = IntelLinux(host)
    values(collector, 0)
    put(tmp_path, "energy2_input", 55_000_000)
    assert values(collector, 1)[SHARE] == 50


def test_the_package_counter_does_not_replace_an_unreadable_card_counter(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, "xe", energy1_input="x", energy2_input=5_000_000))
    assert values(collector, 0) == {}
    put(tmp_path, "energy1_input", 7_000_000)
    values(collector, 1)
    put(tmp_path, "energy1_input", 57_000_000)
    assert values(collector, 2)[POWER] == 50


def test_a_sum_that_restarted_has_not_wrapped(tmp_path: Path) -> None:
    register = 2**32 * 1_000_000 // 2**14
    collector = IntelLinux(arc(tmp_path, energy1_input=register - 10_000_000, temp1_input=40_000))
    values(collector, 0)
    put(tmp_path, "energy1_input", 10_000_000)
    assert POWER not in values(collector, 1)


def test_a_counter_stuck_at_0_gives_no_power(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=0, temp1_input=40_000))
    assert values(collector, 0) == {"gpu_0_temperature_celsius": 40}
    assert "gpu_0: no power: it reads 0" in collector.gaps


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"power1_max": 100_000_000, "power1_cap": 200_000_000}, 50),
        ({"power1_max": 0, "power1_cap": 200_000_000}, 25),
        ({"power1_cap": 200_000_000, "power1_crit": 400_000_000}, 25),
        ({"power1_max": 40_000_000}, 100),
        ({"power1_max": 0}, None),
        ({"power1_crit": 400_000_000, "power1_rated_max": 190_000_000}, None),
    ],
)
def test_the_power_percentage_refers_to_the_enforced_limit(
    tmp_path: Path, limits: dict[str, int], share: float | None
) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=1_000_000, **limits))
    values(collector, 0)
    put(tmp_path, "energy1_input", 51_000_000)
    assert values(collector, 1).get(SHARE) == share


def test_xe_and_i915_number_temperatures_differently(tmp_path: Path) -> None:
    sensors = {"temp1_input": 30_000, "temp2_input": 60_000, "temp3_input": 62_000}
    assert values(IntelLinux(arc(tmp_path / "xe", "xe", **sensors)), 0) == {
        "gpu_0_temperature_celsius": 60,
        "gpu_0_memory_temperature_celsius": 62,
    }
    assert values(IntelLinux(arc(tmp_path / "i915", **sensors)), 0) == {"gpu_0_temperature_celsius": 30}


def test_the_whole_card_is_measured_instead_of_a_tile(tmp_path: Path) -> None:
    host = arc(tmp_path, name="i915_gt0", energy1_input=7_000_000)
    other = tmp_path / "sys/class/drm/card0/device/hwmon/hwmon9"
    other.mkdir()
    (other / "name").write_text("i915\n")
    (other / "energy1_input").write_text("1000000\n")
    collector = IntelLinux(host)
    values(collector, 0)
    (other / "energy1_input").write_text("81000000\n")
    assert values(collector, 1)[POWER] == 80


def test_a_suspended_card_starts_afresh_when_it_resumes(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=1_000_000))
    values(collector, 0)
    status = tmp_path / "sys/class/drm/card0/device/power/runtime_status"
    status.write_text("suspended\n")
    assert values(collector, 10) == {}
    status.write_text("active\n")
    put(tmp_path, "energy1_input", 91_000_000)
    assert values(collector, 20) == {ENERGY: 0}


def test_a_gpu_without_sensors_has_no_series_until_it_is_used(tmp_path: Path) -> None:
    collector = IntelLinux(machine(tmp_path, card("0000:00:02.0", "0x8086\n", "i915")))
    assert [values(collector, now) for now in (0, 5, 10)] == [{}, {}, {}]
    assert collector.gaps == ("gpu_0: only this job's utilization: not supported by this device",)


def test_a_gpu_without_sensors_shows_the_load_of_the_job(tmp_path: Path) -> None:
    host = machine(tmp_path, card("0000:00:02.0", "0x8086\n", "i915"))
    i915(tmp_path, render=0)
    collector = IntelLinux(host)
    assert values(collector, 0) == {}
    i915(tmp_path, render=2_000_000_000)
    found = samples(collector, 5)
    assert {key: (sample.value, sample.span) for key, sample in found.items()} == {LOAD: (40, 5)}
    assert values(collector, 6) == {}  # not mistaken for an unresponsive card


def i915(root: Path, *more: str, **engines: int) -> None:
    lines = [f"drm-engine-{name}: {spent} ns" for name, spent in engines.items()]
    opens(root, 9, "/dev/dri/renderD128", "drm-driver: i915", "drm-client-id: 3", *lines, *more)


def test_utilization_is_that_of_the_busiest_engine_class(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, temp1_input=40_000))
    i915(tmp_path, "drm-engine-capacity-video: 2", render=10, compute=10, video=10)
    values(collector, 0)
    i915(tmp_path, "drm-engine-capacity-video: 2", render=10, compute=1_000_000_010, video=1_500_000_010)
    assert values(collector, 5)[LOAD] == 20


def test_process_memory_counts_only_device_memory(tmp_path: Path) -> None:
    host = arc(tmp_path, temp1_input=40_000)
    i915(
        tmp_path,
        "drm-total-local0: 9 MiB",
        "drm-resident-local0: 4 MiB",
        "drm-resident-system0: 7 MiB",
        "drm-resident-stolen-local0: 8 MiB",
    )
    assert values(IntelLinux(host), 0)["gpu_0_process_memory_megabytes"] == 4 * 1.048576


def test_an_integrated_gpu_has_no_device_memory(tmp_path: Path) -> None:
    host = machine(tmp_path, card("0000:00:02.0", "0x8086\n", "i915"), gpus="process")
    i915(tmp_path, "drm-resident-system0: 7 MiB", render=1)
    collector = IntelLinux(host)
    assert values(collector, 0) == {}
    i915(tmp_path, "drm-resident-system0: 7 MiB", render=500_000_001)
    assert values(collector, 5) == {LOAD: 10}


def test_with_process_an_unused_card_is_not_shown(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, temp1_input=40_000, gpus="process"))
    assert [values(collector, now) for now in (0, 1, 2)] == [{}, {}, {}]


def test_a_removed_card_makes_the_collector_unavailable(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, temp1_input=40_000))
    values(collector, 0)
    (tmp_path / HWMON / "temp1_input").unlink()
    with pytest.raises(Unavailable, match="gpu_0 no longer responds"):
        values(collector, 30)


def test_gaps_name_what_a_card_does_not_report(tmp_path: Path) -> None:
    collector = IntelLinux(arc(tmp_path, energy1_input=1_000_000))
    values(collector, 0)
    assert collector.gaps == (
        "gpu_0: utilization covers this job only; no memory usage: no permission",
        "gpu_0: no temperature: not supported by this device",
        "gpu_0: no power limit: none is set",
    )


def test_a_host_without_cards_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Intel GPU in /sys/class/drm"):
        IntelLinux(machine(tmp_path, card(SLOT, "0x1002\n", "amdgpu")))


def test_a_job_without_visible_cards_is_unavailable(tmp_path: Path) -> None:
    host = machine(tmp_path, card(SLOT, "0x8086\n", "xe"), environ={"ZE_AFFINITY_MASK": "5"})
    with pytest.raises(Unavailable, match="no Intel GPU that this job may see"):
        IntelLinux(host)


def test_the_integrated_gpu_comes_last(tmp_path: Path) -> None:
    host = machine(
        tmp_path,
        card("0000:00:02.0", "0x8086\n", "i915", name="card0", minor=128),
        card("0000:03:00.0", "0x8086\n", "xe", name="card1", minor=129),
        {"sys/class/drm/card1/device/hwmon/hwmon1/temp2_input": "50000\n"},
    )
    assert values(IntelLinux(host), 0) == {"gpu_0_temperature_celsius": 50}


def client(identity: int = 1, **engines: int) -> DrmClient:
    return DrmClient("", identity, {}, engines, {}, {}, {})


def xe(identity: int = 1, capacity: int = 1, **engines: tuple[int, int]) -> DrmClient:
    cycles = {engine: spent for engine, (spent, _) in engines.items()}
    total = {engine: passed for engine, (_, passed) in engines.items()}
    return DrmClient("", identity, {}, {}, cycles, total, dict.fromkeys(engines, capacity))


@pytest.mark.parametrize(
    ("before", "after", "percentage"),
    [
        ([client(render=0)], [client(render=500_000_000)], 50),
        (
            [client(1, render=5), client(2, render=5)],
            [client(1, render=300_000_005), client(2, render=300_000_005)],
            60,
        ),
        ([client(render=7)], [client(render=7)], 0),
        ([client(render=7)], [client(render=3)], None),  # until it has caught up
        ([client(render=0)], [client(render=9_000_000_000)], 100),
        ([client(render=0)], [client(render=0)], None),  # opened, but not used
        ([], [client(render=500_000_000)], None),  # earlier use is unknown
        ([client(render=5)], [], None),
        ([client(render=5)], [client(render=5, copy=100_000_000)], 0),  # a new class
        ([xe(ccs=(100, 1000))], [xe(ccs=(350, 2000))], 25),
        ([xe(ccs=(100, 1000), capacity=4)], [xe(ccs=(2100, 2000), capacity=4)], 50),
        ([xe(ccs=(100, 1000))], [xe(ccs=(350, 1000))], None),  # no cycles elapsed
        ([xe(ccs=(100, 1000))], [xe(rcs=(350, 2000))], None),
    ],
)
def test_busy_time_is_a_percentage_of_a_second(
    before: list[DrmClient], after: list[DrmClient], percentage: float | None
) -> None:
    engines = EngineTime()
    assert engines.busiest(0, before) is None
    share = engines.busiest(1, after)
    assert (share and share.percentage) == (percentage if percentage is None else pytest.approx(percentage))


def test_time_lost_by_a_counter_is_not_counted_twice() -> None:
    engines = EngineTime()
    engines.busiest(0, [client(render=1_000_000_000)])
    engines.busiest(1, [client(render=200_000_000)])
    share = engines.busiest(2, [client(render=1_100_000_000)])
    assert share is not None
    assert share.percentage == pytest.approx(5)  # over both seconds


def test_a_clock_that_goes_backwards_gives_no_percentage() -> None:
    engines = EngineTime()
    engines.busiest(10, [client(render=5)])
    assert engines.busiest(5, [client(render=500_000_000)]) is None


def test_xe_reports_busy_and_total_cycles() -> None:
    found = parse_fdinfo(
        b"drm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\ndrm-total-vram0:\t23992 KiB\n"
        b"drm-resident-vram0:\t20 MiB\ndrm-cycles-ccs:\t28257900\ndrm-total-cycles-ccs:\t7655183225\n"
        b"drm-engine-capacity-ccs:\t4\n"
    )
    assert found == DrmClient(
        slot=SLOT,
        identity=3,
        memory={"vram0": 20 * 1024**2},
        busy={},
        cycles={"ccs": 28_257_900},
        total_cycles={"ccs": 7_655_183_225},
        capacity={"ccs": 4},
    )
