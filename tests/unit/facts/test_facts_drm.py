"""AMD and Intel GPUs, on small trees of /sys/class/drm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from facts_machines import machine, tools

from mlflow_sysmetrics.facts import drm
from mlflow_sysmetrics.facts.values import Gpu, GpuReport

pytestmark = pytest.mark.unit

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


def report(root: Path, *cards: Mapping[str, str], **files: str) -> GpuReport:
    tree = {path: text for each in (*cards, files) for path, text in each.items()}
    return drm.gpus(machine(root, tree), tools())


def test_the_drivers_own_name_and_memory(tmp_path: Path) -> None:
    instinct = card(
        1, "1002", "74a1", product_name="AMD Instinct MI300X OAM\n", mem_info_vram_total="206141652992\n"
    )
    assert report(tmp_path, instinct).gpus == (
        Gpu(name="AMD Instinct MI300X OAM", memory_bytes=206141652992),
    )


def test_the_name_of_the_chip_and_its_revision(tmp_path: Path) -> None:
    files = {"usr/share/libdrm/amdgpu.ids": AMDGPU_IDS, "usr/share/misc/pci.ids": PCI_IDS}
    found = report(tmp_path, card(0, "1002", "744c", revision="0xc8\n"), **files)
    assert [gpu.name for gpu in found.gpus] == ["AMD Radeon RX 7900 XTX"]


def test_the_name_in_pci_ids(tmp_path: Path) -> None:
    files = {"usr/share/misc/pci.ids": PCI_IDS}
    found = report(tmp_path, card(0, "8086", "46a6"), card(1, "1002", "744c"), **files)
    assert [gpu.name for gpu in found.gpus] == ["Intel Alder Lake-P GT2 [Iris Xe Graphics]", "AMD Navi 31"]


def test_the_ids_where_no_name_is_known(tmp_path: Path) -> None:
    assert report(tmp_path, card(0, "8086", "56a0")).gpus == (Gpu(name="Intel GPU [8086:56a0]"),)


def test_cards_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = report(tmp_path, card(10, "1002", "0010"), card(2, "1002", "0002"))
    assert [gpu.name for gpu in found.gpus] == ["AMD GPU [1002:0002]", "AMD GPU [1002:0010]"]


def test_management_controllers_connectors_and_nvidia_are_not_counted(tmp_path: Path) -> None:
    aspeed, nvidia = card(0, "1a03", "2000"), card(1, "10de", "2335")
    connector = {"sys/class/drm/card0-VGA-1/status": "connected\n", "sys/class/drm/version": "drm 1.1.0\n"}
    assert report(tmp_path, aspeed, nvidia, connector) == GpuReport()


def test_no_display_subsystem(tmp_path: Path) -> None:
    assert report(tmp_path) == GpuReport()


def test_garbage_names_nothing(tmp_path: Path) -> None:
    files = {"usr/share/libdrm/amdgpu.ids": "\x00\x01", "usr/share/misc/pci.ids": "1002\n"}
    found = report(tmp_path, card(0, "1002", "744c", mem_info_vram_total="much"), **files)
    assert found.gpus == (Gpu(name="AMD GPU [1002:744c]"),)
