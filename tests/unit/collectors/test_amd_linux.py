"""AMD GPUs: which sensor is used for which series, and what is absent rather than wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from drm_machine import card, machine, opens, samples
from small_machines import values

from mlflow_sysmetrics.collectors.amd_linux import AmdLinux, parse_error_count
from mlflow_sysmetrics.collectors.drm import cards
from mlflow_sysmetrics.collectors.drm.hwmon import EnergyIntegral
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from recorded import HOSTS, advance, revive

DEVICE = "sys/class/drm/card0/device"
SLOT = "0000:03:00.0"
RADEON = {
    "gpu_busy_percent": "97\n",
    "mem_busy_percent": "41\n",
    "mem_info_vram_used": "4000000000\n",
    "mem_info_vram_total": "16000000000\n",
    "ras/umc_err_count": "ue: 1\nce: 4\n",
    "hwmon/hwmon3/name": "amdgpu\n",
    "hwmon/hwmon3/power1_average": "250000000\n",
    "hwmon/hwmon3/power1_cap": "300000000\n",
    "hwmon/hwmon3/temp1_input": "50000\n",
    "hwmon/hwmon3/temp1_label": "edge\n",
    "hwmon/hwmon3/temp2_input": "70000\n",
    "hwmon/hwmon3/temp2_label": "junction\n",
    "hwmon/hwmon3/temp3_input": "80000\n",
    "hwmon/hwmon3/temp3_label": "mem\n",
}
ALL = {
    "gpu_0_utilization_percentage": 97,
    "gpu_0_memory_usage_megabytes": 4000,
    "gpu_0_memory_usage_percentage": 25,
    "gpu_0_power_usage_watts": 250,
    "gpu_0_power_usage_percentage": 250 / 3,
    "gpu_0_energy_watt_hours": 0,
    "gpu_0_temperature_celsius": 50,
    "gpu_0_memory_temperature_celsius": 80,
    "gpu_0_ecc_errors": 0,
}


def on_the_card(files: Mapping[str, str | None], name: str = "card0") -> dict[str, str]:
    return {f"sys/class/drm/{name}/device/{path}": text for path, text in files.items() if text is not None}


def radeon(root: Path, changes: Mapping[str, str | None] | None = None, **settings: str) -> Host:
    files = on_the_card({**RADEON, **(changes or {})})
    return machine(root, card(SLOT, "0x1002\n", "amdgpu"), files, gpus=settings.get("gpus", "visible"))


def put(root: Path, path: str, text: str) -> None:
    (root / DEVICE / path).write_text(text)


def recorded(name: str) -> Path:
    return next(path for path in HOSTS if path.name == name)


def test_a_card_has_every_series(tmp_path: Path) -> None:
    assert values(AmdLinux(radeon(tmp_path)), 0) == pytest.approx(ALL)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"gpu_busy_percent": "65535\n"}, ["utilization_percentage"]),
        ({"gpu_busy_percent": ""}, ["utilization_percentage"]),
        ({"hwmon/hwmon3/power1_cap": "0\n"}, ["power_usage_percentage"]),
        ({"hwmon/hwmon3/power1_cap": None}, ["power_usage_percentage"]),
        (
            {"hwmon/hwmon3/power1_average": "0\n"},
            ["power_usage_watts", "power_usage_percentage", "energy_watt_hours"],
        ),
        (
            {"hwmon/hwmon3/power1_average": "4294967295000\n"},
            ["power_usage_watts", "power_usage_percentage", "energy_watt_hours"],
        ),
        ({"hwmon/hwmon3/temp3_input": "0\n"}, ["memory_temperature_celsius"]),
        ({"hwmon/hwmon3/temp3_label": None}, ["memory_temperature_celsius"]),
        ({"mem_info_vram_total": "0\n"}, ["memory_usage_percentage"]),
        ({"mem_info_vram_used": "nan\n"}, ["memory_usage_megabytes", "memory_usage_percentage"]),
        ({"mem_info_vram_total": "1000\n"}, ["memory_usage_megabytes", "memory_usage_percentage"]),
        ({"ras/umc_err_count": "Query currently inaccessible\n"}, ["ecc_errors"]),
        ({"ras/umc_err_count": None}, ["ecc_errors"]),
    ],
    ids=str,
)
def test_a_sensor_without_a_value_is_absent(
    tmp_path: Path, changes: dict[str, str | None], keys: list[str]
) -> None:
    left = {key: value for key, value in ALL.items() if key.removeprefix("gpu_0_") not in keys}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0) == pytest.approx(left)


def test_instantaneous_power_replaces_a_missing_average(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/power1_average": None, "hwmon/hwmon3/power1_input": "142000000\n"}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0)["gpu_0_power_usage_watts"] == 142


def test_instantaneous_power_replaces_an_average_of_0(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/power1_average": "0\n", "hwmon/hwmon3/power1_input": "142000000\n"}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0)["gpu_0_power_usage_watts"] == 142


def test_the_junction_temperature_replaces_a_missing_edge_sensor(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/temp1_input": None, "hwmon/hwmon3/temp1_label": None}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0)["gpu_0_temperature_celsius"] == 70


def test_an_unlabelled_sensor_is_the_temperature_of_the_chip(tmp_path: Path) -> None:
    changes = {f"hwmon/hwmon3/temp{number}_label": None for number in (1, 2, 3)}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0)["gpu_0_temperature_celsius"] == 50


def test_power_over_the_cap_is_100_percent(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/power1_average": "310000000\n"}
    assert values(AmdLinux(radeon(tmp_path, changes)), 0)["gpu_0_power_usage_percentage"] == 100


def test_a_changed_power_cap_applies_after_ten_seconds(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "hwmon/hwmon3/power1_cap", "500000000\n")
    assert values(collector, 9)["gpu_0_power_usage_percentage"] == pytest.approx(250 / 3)
    assert values(collector, 10)["gpu_0_power_usage_percentage"] == 50


def test_energy_is_power_over_time(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "hwmon/hwmon3/power1_average", "290000000\n")
    assert values(collector, 10)["gpu_0_energy_watt_hours"] == pytest.approx(270 * 10 / 3600)


def test_a_clock_that_goes_backwards_adds_no_energy() -> None:
    energy = EnergyIntegral()
    energy.add(10, 100)
    assert energy.add(5, 100) == 0
    assert energy.add(6, 100) == 100


def test_memory_errors_are_counted_from_the_first_reading(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "ras/umc_err_count", "ue: 1\nce: 6\n")
    assert "gpu_0_ecc_errors" not in values(collector, 59)
    assert values(collector, 60)["gpu_0_ecc_errors"] == 2


def test_memory_errors_do_not_decrease_when_the_driver_resets_them(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "ras/umc_err_count", "ue: 0\nce: 0\n")
    assert "gpu_0_ecc_errors" not in values(collector, 60)  # not believed yet
    assert values(collector, 120)["gpu_0_ecc_errors"] == 0
    put(tmp_path, "ras/umc_err_count", "ue: 0\nce: 1\n")
    assert values(collector, 180)["gpu_0_ecc_errors"] == 1


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (b"ue: 0\nce: 0\n", 0),
        (b"ue: 1\nce: 2\n", 3),
        (b"ue: 1\nce: 2\nde: 4\n", 7),
        (b"ue: 1\n", None),
        (b"ue: 1\nce: 2", None),
        (b"", None),
    ],
)
def test_parses_the_error_counts_of_memory(text: bytes, errors: int | None) -> None:
    assert parse_error_count(text) == errors


def test_the_power_of_an_apu_is_not_reported_as_gpu_power(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/in1_input": "1090\n", "hwmon/hwmon3/in1_label": "vddnb\n"}
    collector = AmdLinux(radeon(tmp_path, changes))
    assert "gpu_0_power_usage_watts" not in values(collector, 0)
    assert "gpu_0: no power: the sensor includes the CPU" in collector.gaps


def test_the_memory_of_an_apu_includes_its_share_of_host_memory(tmp_path: Path) -> None:
    changes = {
        "hwmon/hwmon3/in1_input": "1090\n",
        "mem_info_vram_used": "400000000\n",
        "mem_info_vram_total": "500000000\n",
        "mem_info_gtt_used": "3100000000\n",
        "mem_info_gtt_total": "13500000000\n",
    }
    said = values(AmdLinux(radeon(tmp_path, changes)), 0)
    assert said["gpu_0_memory_usage_megabytes"] == 3500
    assert said["gpu_0_memory_usage_percentage"] == 25


def test_a_suspended_card_is_not_read(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "power/runtime_status", "suspended\n")
    assert values(collector, 1) == {}
    assert "gpu_0 is switched off" in collector.gaps


def test_a_suspended_card_adds_no_energy(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    put(tmp_path, "power/runtime_status", "suspended\n")
    values(collector, 100)
    put(tmp_path, "power/runtime_status", "active\n")
    assert values(collector, 200)["gpu_0_energy_watt_hours"] == 0


def test_a_removed_card_makes_the_collector_unavailable(tmp_path: Path) -> None:
    collector = AmdLinux(radeon(tmp_path))
    values(collector, 0)
    for path in RADEON:
        (tmp_path / DEVICE / path).unlink()
    assert values(collector, 29) == {}
    with pytest.raises(Unavailable, match="gpu_0 no longer responds"):
        values(collector, 30)


def test_gaps_name_what_is_missing_and_the_reason(tmp_path: Path) -> None:
    changes = {"hwmon/hwmon3/temp3_label": None, "hwmon/hwmon3/power1_cap": "0\n"}
    collector = AmdLinux(radeon(tmp_path, changes))
    values(collector, 0)
    assert collector.gaps == (
        "gpu_0: no memory temperature: not supported by this device",
        "gpu_0: no power limit: none is set",
    )


def test_gaps_name_missing_power_and_memory(tmp_path: Path) -> None:
    changes = {
        "mem_info_vram_used": None,
        "hwmon/hwmon3/power1_average": None,
        "gpu_busy_percent": "400\n",
    }
    collector = AmdLinux(radeon(tmp_path, changes))
    values(collector, 0)
    assert collector.gaps == (
        "gpu_0: no utilization: out of range",
        "gpu_0: no power, no memory usage: not supported by this device",
    )


def test_a_host_without_cards_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no AMD GPU in /sys/class/drm"):
        AmdLinux(machine(tmp_path, card(SLOT, "0x8086\n", "i915")))


def test_a_job_without_visible_cards_is_unavailable(tmp_path: Path) -> None:
    files = on_the_card(RADEON)
    host = machine(tmp_path, card(SLOT, "0x1002\n", "amdgpu"), files, environ={"HIP_VISIBLE_DEVICES": "-1"})
    with pytest.raises(Unavailable, match="no AMD GPU that this job may see"):
        AmdLinux(host)


def two_cards(root: Path, *, environ: dict[str, str] | None = None, gpus: str = "visible") -> Host:
    """Makes two cards; card0 comes after card1 on the PCI bus."""
    return machine(
        root,
        card("0000:83:00.0", "0x1002\n", "amdgpu", name="card0", minor=128),
        card("0000:03:00.0", "0x1002\n", "amdgpu", name="card1", minor=129),
        on_the_card({"gpu_busy_percent": "83\n", "unique_id": "83aa\n"}, "card0"),
        on_the_card({"gpu_busy_percent": "3\n", "unique_id": "3aa\n"}, "card1"),
        environ=environ,
        gpus=gpus,
    )


def loads(collector: AmdLinux) -> dict[str, float]:
    return {
        key: value for key, value in values(collector, 0).items() if key.endswith("_utilization_percentage")
    }


def test_cards_are_numbered_in_pci_bus_order(tmp_path: Path) -> None:
    assert loads(AmdLinux(two_cards(tmp_path))) == {
        "gpu_0_utilization_percentage": 3,
        "gpu_1_utilization_percentage": 83,
    }


def test_the_order_of_rocm_takes_precedence_over_the_pci_bus(tmp_path: Path) -> None:
    host = two_cards(tmp_path)
    for node, minor in ((1, 128), (2, 129)):
        path = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{node}/properties"
        path.parent.mkdir(parents=True)
        path.write_text(f"simd_count 192\ndrm_render_minor {minor}\nunique_id 0\n")
    assert loads(AmdLinux(host))["gpu_0_utilization_percentage"] == 83


def kfd_node(root: Path, number: int, text: str) -> None:
    properties = root / f"sys/class/kfd/kfd/topology/nodes/{number}/properties"
    properties.parent.mkdir(parents=True)
    properties.write_text(text)


def test_a_device_that_rocm_may_not_open_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_node_1(path: str) -> bytes:
        if path.endswith("nodes/1/properties"):
            raise PermissionError(1, "Operation not permitted", path)
        return read_short(path)

    host = two_cards(tmp_path)
    kfd_node(tmp_path, 1, "")
    kfd_node(tmp_path, 2, "simd_count 192\ndrm_render_minor 129\n")
    monkeypatch.setattr(cards, "read_short", refuse_node_1)
    assert loads(AmdLinux(host)) == {"gpu_0_utilization_percentage": 3}


@pytest.mark.parametrize("text", ["", "simd_count nan\n", "simd_count 192\n"])
def test_an_invalid_kfd_node_makes_the_collector_unavailable(tmp_path: Path, text: str) -> None:
    host = two_cards(tmp_path)
    kfd_node(tmp_path, 1, text)
    kfd_node(tmp_path, 2, "simd_count 192\ndrm_render_minor 129\n")
    with pytest.raises(Unavailable, match="nodes/1/properties: neither a CPU nor a GPU"):
        AmdLinux(host)


def test_a_card_without_a_pci_slot_makes_the_collector_unavailable(tmp_path: Path) -> None:
    host = two_cards(tmp_path)
    (tmp_path / "sys/class/drm/card1/device/uevent").write_text("DRIVER=amdgpu\n")
    with pytest.raises(Unavailable, match="card1/device/uevent: no PCI slot"):
        AmdLinux(host)


def test_a_hot_plugged_card_is_found_within_two_minutes(tmp_path: Path) -> None:
    host = two_cards(tmp_path)
    vendor = tmp_path / "sys/class/drm/card0/device/vendor"
    vendor.unlink()
    collector = AmdLinux(host)
    assert len(loads(collector)) == 1
    vendor.write_text("0x1002\n")
    assert values(collector, 119)
    with pytest.raises(Unavailable, match="the GPUs have changed"):
        values(collector, 120)
    assert len(loads(AmdLinux(host))) == 2


def test_hip_visible_devices_selects_and_orders_cards(tmp_path: Path) -> None:
    host = two_cards(tmp_path, environ={"HIP_VISIBLE_DEVICES": "1,0"})
    assert loads(AmdLinux(host))["gpu_0_utilization_percentage"] == 83


def test_a_card_can_be_selected_by_its_unique_id(tmp_path: Path) -> None:
    host = two_cards(tmp_path, environ={"ROCR_VISIBLE_DEVICES": "GPU-00000000000083aa"})
    assert loads(AmdLinux(host)) == {"gpu_0_utilization_percentage": 83}


def test_a_card_selected_from_a_list_keeps_its_index(tmp_path: Path) -> None:
    assert loads(AmdLinux(two_cards(tmp_path, gpus="1"))) == {"gpu_1_utilization_percentage": 83}


def test_an_index_beyond_the_last_card_is_a_gap(tmp_path: Path) -> None:
    collector = AmdLinux(two_cards(tmp_path, gpus="1,7"))
    assert any("7" in gap for gap in collector.gaps)


def test_nvidia_cards_are_numbered_before_amd_cards(tmp_path: Path) -> None:
    host = two_cards(tmp_path)
    host.gpu_ordinals.first("nvidia", 4)
    assert loads(AmdLinux(host)).keys() == {"gpu_4_utilization_percentage", "gpu_5_utilization_percentage"}


def test_a_device_is_registered_by_its_uuid(tmp_path: Path) -> None:
    host = two_cards(tmp_path)
    AmdLinux(host)
    assert host.gpu_ordinals.of("GPU-00000000000083aa") == 1


def test_process_memory_is_the_vram_held_by_the_job(tmp_path: Path) -> None:
    host = radeon(tmp_path)
    opens(
        tmp_path,
        7,
        "/dev/dri/renderD128",
        "drm-driver:\tamdgpu",
        f"drm-pdev:\t{SLOT}",
        "drm-client-id:\t42",
        "drm-memory-vram:\t2048 KiB",
        "drm-memory-gtt: \t1024 KiB",
    )
    assert values(AmdLinux(host), 0)["gpu_0_process_memory_megabytes"] == 2.097152


def test_process_memory_spans_the_time_since_its_last_reading(tmp_path: Path) -> None:
    host = radeon(tmp_path)
    opens(
        tmp_path, 7, "/dev/dri/renderD128", "drm-driver: amdgpu", "drm-client-id: 1", "drm-memory-vram: 4 KiB"
    )
    collector = AmdLinux(host)
    key = "gpu_0_process_memory_megabytes"
    assert samples(collector, 0)[key].span is None
    assert key not in samples(collector, 1)
    assert samples(collector, 5)[key].span == 5


def test_with_process_only_cards_whose_memory_the_job_holds_are_shown(tmp_path: Path) -> None:
    host = two_cards(tmp_path, gpus="process")
    opens(
        tmp_path, 7, "/dev/dri/renderD128", "drm-driver: amdgpu", "drm-client-id: 1", "drm-memory-vram: 4 KiB"
    )
    assert loads(AmdLinux(host)) == {"gpu_1_utilization_percentage": 83}


def test_memory_held_on_a_partition_is_reported_for_the_partition(tmp_path: Path) -> None:
    host = revive(recorded("amd-mi300"), tmp_path)
    opens(
        tmp_path,
        7,
        "/dev/dri/renderD131",
        "drm-driver: amdgpu",
        "drm-pdev: 0000:05:00.0",
        "drm-client-id: 1",
        "drm-memory-vram: 1000 KiB",
    )
    assert values(AmdLinux(host), 0)["gpu_3_process_memory_megabytes"] == 1.024


def test_a_partition_does_not_report_the_load_of_the_whole_card(tmp_path: Path) -> None:
    host = revive(recorded("amd-mi300"), tmp_path)
    keys = [key for key in values(AmdLinux(host), 0) if key.startswith("gpu_0_")]
    assert not [key for key in keys if "utilization" in key or "memory_usage" in key]


def test_the_second_die_of_an_mi250_has_no_power(tmp_path: Path) -> None:
    machine_with_dies = recorded("amd-mi250")
    collector = AmdLinux(revive(machine_with_dies, tmp_path))
    values(collector, 0)
    advance(machine_with_dies, tmp_path)
    keys = values(collector, 1)
    assert "gpu_0_energy_watt_hours" in keys
    assert not [key for key in keys if key.startswith("gpu_1_") and ("power" in key or "energy" in key)]


def test_missing_proc_is_a_gap_in_process_memory(tmp_path: Path) -> None:
    host = radeon(tmp_path)
    (tmp_path / "proc/self/stat").unlink()
    collector = AmdLinux(host)
    assert "gpu_0_utilization_percentage" in values(collector, 0)
    assert collector.gaps[0].startswith("no process memory: this process cannot be read")


def test_energy_excludes_time_when_the_job_did_not_use_the_card(tmp_path: Path) -> None:
    host = radeon(tmp_path, gpus="process")
    client = ("drm-driver: amdgpu", "drm-client-id: 1", "drm-memory-vram: 4 KiB")
    opens(tmp_path, 7, "/dev/dri/renderD128", *client)
    collector = AmdLinux(host)
    key = "gpu_0_energy_watt_hours"
    values(collector, 0)
    used = values(collector, 36)[key]
    assert used == pytest.approx(250 * 36 / 3600)
    for name in ("fd/7", "fdinfo/7"):
        (tmp_path / "proc/self" / name).unlink()
    assert key not in values(collector, 72)
    opens(tmp_path, 7, "/dev/dri/renderD128", *client)
    values(collector, 3600)
    assert values(collector, 3610)[key] <= used + 250 * 46 / 3600


def test_changing_the_device_list_later_changes_no_series(tmp_path: Path) -> None:
    """HIP has been initialized, so the change affects only children of the program."""
    environ = {"HIP_VISIBLE_DEVICES": "0"}
    collector = AmdLinux(replace(two_cards(tmp_path), environ=environ))
    before = loads(collector)
    environ["HIP_VISIBLE_DEVICES"] = "1"
    values(collector, 1)
    assert {key: value for key, value in values(collector, 500).items() if key in before} == before


def test_indices_in_a_list_refer_to_nvidia_gpus_if_present(tmp_path: Path) -> None:
    host = radeon(tmp_path, gpus="0")
    host.gpu_ordinals.first("nvidia", 2)
    with pytest.raises(Unavailable, match="no AMD GPU that this job may see"):
        AmdLinux(host)
