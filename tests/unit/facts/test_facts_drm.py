"""AMD and Intel GPUs, on small trees of /sys/class/drm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from facts_machines import machine, tools

from mlflow_sysmetrics.facts import drm_gpus
from mlflow_sysmetrics.facts.values import Gpu, GpuReport

AMDGPU_IDS = (
    "# List of AMDGPU IDs\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n"
)
PCI_IDS = (
    "# pci.ids\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t744c  Navi 31\n\t\t1002 0e3b  RX 7900\n"
    "8086  Intel Corporation\n\t46a6  Alder Lake-P GT2 [Iris Xe Graphics]\n10de  NVIDIA Corporation\n"
)


def card(index: int, vendor: str, device: str, **files: str) -> dict[str, str]:
    known = {"vendor": f"0x{vendor}\n", "device": f"0x{device}\n", **files}
    return {f"sys/class/drm/card{index}/device/{name}": text for name, text in known.items()}


def kfd(node: int, minor: int, simds: int = 304, unique_id: int = 0) -> dict[str, str]:
    """Returns a ROCm node; that of a CPU has neither SIMDs nor a render node."""
    text = f"cpu_cores_count 0\nsimd_count {simds}\ndrm_render_minor {minor}\nunique_id {unique_id}\n"
    return {f"sys/class/kfd/kfd/topology/nodes/{node}/properties": text}


def slot(address: str) -> str:
    return f"DRIVER=amdgpu\nPCI_CLASS=38000\nPCI_SLOT_NAME={address}\n"


def report(
    root: Path, *cards: Mapping[str, str], environ: Mapping[str, str] | None = None, **files: str
) -> GpuReport:
    tree = {path: text for each in (*cards, files) for path, text in each.items()}
    return drm_gpus.gpus(machine(root, tree, environ=environ), tools())


def test_reads_name_and_memory_from_the_driver(tmp_path: Path) -> None:
    instinct = card(
        1, "1002", "74a1", product_name="AMD Instinct MI300X OAM\n", mem_info_vram_total="206141652992\n"
    )
    assert report(tmp_path, instinct).gpus == (
        Gpu(name="AMD Instinct MI300X OAM", memory_bytes=206141652992, index=0),
    )


def test_the_memory_of_a_processor_with_graphics_includes_the_ram_that_it_may_use(tmp_path: Path) -> None:
    """As the usage does that the collector reports: a tag of 0.54 GB beside 4,461 MB in use fits nothing."""
    regions = {"mem_info_vram_total": "536870912\n", "mem_info_gtt_total": "16440909824\n"}
    integrated = card(0, "1002", "150e", **regions, **{"hwmon/hwmon6/in1_input": "0\n"})
    assert report(tmp_path / "integrated", integrated).gpus[0].memory_bytes == 536870912 + 16440909824
    dedicated = card(0, "1002", "744c", **regions, **{"hwmon/hwmon6/in0_input": "0\n"})
    assert report(tmp_path / "dedicated", dedicated).gpus[0].memory_bytes == 536870912


def test_the_name_is_looked_up_by_chip_and_revision(tmp_path: Path) -> None:
    files = {"usr/share/libdrm/amdgpu.ids": AMDGPU_IDS, "usr/share/misc/pci.ids": PCI_IDS}
    found = report(tmp_path, card(0, "1002", "744c", revision="0xc8\n"), **files)
    assert [gpu.name for gpu in found.gpus] == ["AMD Radeon RX 7900 XTX"]


def test_the_name_comes_from_pci_ids(tmp_path: Path) -> None:
    files = {"usr/share/misc/pci.ids": PCI_IDS}
    found = report(tmp_path, card(0, "8086", "46a6"), card(1, "1002", "744c"), **files)
    assert [gpu.name for gpu in found.gpus] == ["AMD Navi 31", "Intel Alder Lake-P GT2 [Iris Xe Graphics]"]


def test_a_card_without_a_known_name_shows_its_ids(tmp_path: Path) -> None:
    assert report(tmp_path, card(0, "8086", "56a0")).gpus == (Gpu(name="Intel GPU [8086:56a0]", index=0),)


def test_cards_are_ordered_by_number(tmp_path: Path) -> None:
    found = report(tmp_path, card(10, "1002", "0010"), card(2, "1002", "0002"))
    assert [gpu.name for gpu in found.gpus] == ["AMD GPU [1002:0002]", "AMD GPU [1002:0010]"]


def test_management_controllers_connectors_and_nvidia_cards_are_ignored(tmp_path: Path) -> None:
    aspeed, nvidia = card(0, "1a03", "2000"), card(1, "10de", "2335")
    connector = {"sys/class/drm/card0-VGA-1/status": "connected\n", "sys/class/drm/version": "drm 1.1.0\n"}
    assert report(tmp_path, aspeed, nvidia, connector) == GpuReport()


def test_a_host_without_a_drm_subsystem_has_no_gpus(tmp_path: Path) -> None:
    assert report(tmp_path) == GpuReport()


def test_garbage_names_nothing(tmp_path: Path) -> None:
    files = {"usr/share/libdrm/amdgpu.ids": "\x00\x01", "usr/share/misc/pci.ids": "1002\n"}
    found = report(tmp_path, card(0, "1002", "744c", mem_info_vram_total="much"), **files)
    assert found.gpus == (Gpu(name="AMD GPU [1002:744c]", index=0),)


def test_cards_are_ordered_by_pci_bus(tmp_path: Path) -> None:
    late = card(0, "1002", "0083", uevent=slot("0000:83:00.0"))
    early = card(1, "1002", "0003", uevent=slot("0000:03:00.0"))
    names = [gpu.name for gpu in report(tmp_path, late, early).gpus]
    assert names == ["AMD GPU [1002:0003]", "AMD GPU [1002:0083]"]


@pytest.mark.parametrize(
    ("unique_id", "uuid"),
    [("4b2c1a9f8d3e6f7a", "GPU-4b2c1a9f8d3e6f7a"), ("b2c", "GPU-0000000000000b2c"), ("0", None), ("-", None)],
)
def test_the_uuid_is_the_one_of_rocm(tmp_path: Path, unique_id: str, uuid: str | None) -> None:
    (gpu,) = report(tmp_path, card(0, "1002", "744c", unique_id=f"{unique_id}\n")).gpus
    assert gpu.uuid == uuid


def test_only_cards_visible_to_hip_are_listed(tmp_path: Path) -> None:
    environ = {"HIP_VISIBLE_DEVICES": "1"}
    found = report(tmp_path, card(0, "1002", "0000"), card(1, "1002", "0001"), environ=environ)
    assert [(gpu.name, gpu.index) for gpu in found.gpus] == [("AMD GPU [1002:0001]", 1)]


def test_only_cards_visible_to_level_zero_are_listed(tmp_path: Path) -> None:
    own = card(0, "8086", "46a6", uevent=slot("0000:00:02.0"))
    arc = card(1, "8086", "56a0", uevent=slot("0000:03:00.0"))
    found = report(tmp_path, own, arc, environ={"ZE_AFFINITY_MASK": "0"})
    assert [(gpu.name, gpu.index) for gpu in found.gpus] == [("Intel GPU [8086:56a0]", 1)]


def test_an_unknown_selector_is_a_problem_if_there_is_a_card(tmp_path: Path) -> None:
    environ = {"ONEAPI_DEVICE_SELECTOR": "opencl:*"}
    assert report(tmp_path / "bare", environ=environ) == GpuReport()
    (problem,) = report(tmp_path / "arc", card(0, "8086", "56a0"), environ=environ).problems
    assert problem.startswith("ONEAPI_DEVICE_SELECTOR=opencl:* is not supported here")


def test_amd_gpus_are_ordered_as_in_rocm(tmp_path: Path) -> None:
    near = card(0, "1002", "0003", uevent=slot("0000:03:00.0")) | {
        "sys/class/drm/card0/device/drm/renderD128/dev": "226:128\n"
    }
    far = card(1, "1002", "0083", uevent=slot("0000:83:00.0")) | {
        "sys/class/drm/card1/device/drm/renderD129/dev": "226:129\n"
    }
    found = report(tmp_path, near, far, kfd(0, 0, simds=0), kfd(10, 128), kfd(9, 129))
    assert [gpu.name for gpu in found.gpus] == ["AMD GPU [1002:0083]", "AMD GPU [1002:0003]"]


def test_each_partition_of_a_card_is_a_device(tmp_path: Path) -> None:
    instinct = card(
        1,
        "1002",
        "74a1",
        product_name="AMD Instinct MI300X OAM\n",
        mem_info_vram_total="206141652992\n",
        current_compute_partition="DPX\n",
        unique_id="4b2c1a9f8d3e6f7a\n",
    ) | {"sys/class/drm/card1/device/drm/renderD128/dev": "226:128\n"}
    found = report(tmp_path, instinct, kfd(1, 128), kfd(2, 129, unique_id=0xBA), kfd(3, 130))
    assert found.gpus == (
        Gpu(name="AMD Instinct MI300X OAM DPX", uuid="GPU-4b2c1a9f8d3e6f7a", index=0),
        Gpu(name="AMD Instinct MI300X OAM DPX", uuid="GPU-00000000000000ba", index=1),
        Gpu(name="AMD Instinct MI300X OAM DPX", index=2),
    )


def test_a_rocm_device_without_a_card_keeps_its_position(tmp_path: Path) -> None:
    known = card(1, "1002", "74a1") | {"sys/class/drm/card1/device/drm/renderD128/dev": "226:128\n"}
    found = report(tmp_path, known, kfd(1, 127), kfd(2, 128))
    assert [(gpu.name, gpu.index) for gpu in found.gpus] == [("AMD GPU", 0), ("AMD GPU [1002:74a1]", 1)]
