"""AMD and Intel GPUs that their runtimes would show, according to the runtimes' source code."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd
from mlflow_sysmetrics.machine.visible_gpus.intel import select_intel
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen

AMD = ("GPU-deadbeefdeadbe00", "GPU-deadbeefdeadbe11", "GPU-4b2c1a9f8d3e6f7a", "")
INTEL = ("0000:00:02.0", "0000:03:00.0", "0000:83:00.0")  # an integrated GPU and two cards


def amd(**environ: str) -> list[int]:
    chosen = select_amd(environ, "visible", AMD).chosen
    assert [one.ordinal for one in chosen] == list(range(len(chosen)))
    return [one.index for one in chosen]


def intel(**environ: str) -> list[int]:
    chosen = select_intel(environ, "visible", INTEL).chosen
    assert [one.ordinal for one in chosen] == list(range(len(chosen)))
    return [one.index for one in chosen]


def test_all_amd_gpus_are_visible_by_default() -> None:
    assert amd() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("listed", "expected", "reason"),
    [
        ("2,0", [2, 0], "in the order of the list"),
        (" 1 , 3 ", [1, 3], "blanks do not count"),
        ("0,GPU-4B2C1A9F8D3E6F7A", [0, 2], "an index and a UUID, in any letter case"),
        ("gpu-4b", [2], "the beginning of a UUID"),
        ("GPU-DEADBEEF,0", [], "the beginning of two ends the list"),
        ("GPU-4b,GPU-00", [2], "an unknown UUID ends the list"),
        ("1,1,2", [1], "a device named twice ends the list"),
        ("0,4,1", [0], "an index out of range ends the list"),
        ("0,-1,1", [0], "and so does a negative one"),
        ("0,,1", [0], "and an empty one"),
        ("x", [], "and garbage"),
        ("", [], "empty means none"),
    ],
)
def test_rocr_visible_devices_selects(listed: str, expected: list[int], reason: str) -> None:
    assert amd(ROCR_VISIBLE_DEVICES=listed) == expected, reason


@pytest.mark.parametrize(
    ("listed", "expected", "reason"),
    [
        ("2,0", [2, 0], "in the order of the list"),
        ("1,1,2", [1, 2], "what is named twice is passed over"),
        ("0, 1", [0], "a blank makes an entry invalid, which ends the list"),
        ("01", [], "so does a leading zero"),
        ("0,9,1", [0], "and an index out of range"),
        ("-1", [], "and a negative one"),
        ("GPU-4b2c1a9f8d3e6f7a,0", [2, 0], "a UUID"),
        ("GPU-deadbeef", [0], "the beginning of two is the first of them"),
        ("", [], "PyTorch shows none"),
    ],
)
def test_hip_visible_devices_selects(listed: str, expected: list[int], reason: str) -> None:
    assert amd(HIP_VISIBLE_DEVICES=listed) == expected, reason


def test_hip_indices_count_within_the_rocr_selection() -> None:
    assert amd(ROCR_VISIBLE_DEVICES="3,1,2", HIP_VISIBLE_DEVICES="2,0") == [2, 3]
    assert amd(ROCR_VISIBLE_DEVICES="3,1", HIP_VISIBLE_DEVICES="2") == []


def test_cuda_visible_devices_replaces_a_missing_hip_variable() -> None:
    assert amd(CUDA_VISIBLE_DEVICES="1") == [1]
    assert amd(CUDA_VISIBLE_DEVICES="1", HIP_VISIBLE_DEVICES="2") == [2]
    assert amd(CUDA_VISIBLE_DEVICES="") == []


def test_hip_ignores_the_opencl_variable() -> None:
    assert amd(GPU_DEVICE_ORDINAL="1") == [0, 1, 2, 3]


def test_a_user_list_numbers_amd_gpus_by_index() -> None:
    found = select_amd({"HIP_VISIBLE_DEVICES": ""}, "3,GPU-4b", AMD)
    assert found.chosen == (Chosen(2, 2), Chosen(3, 3))


def test_discrete_intel_cards_precede_the_integrated_gpu() -> None:
    assert intel() == [1, 2, 0]
    assert intel(ZE_ENABLE_PCI_ID_DEVICE_ORDER="1") == [0, 1, 2]


@pytest.mark.parametrize(
    ("mask", "expected", "reason"),
    [
        ("0", [1], "Level Zero's device 0 is a card"),
        ("2", [0], "its last one is the processor's own"),
        ("1,0", [1, 2], "the mask filters, the order stays"),
        ("0.1", [1], "a tile stands for its card"),
        ("9,1", [2], "what is out of range is passed over"),
        ("", [1, 2, 0], "empty is as if it were not set"),
        ("default", [1, 2, 0], "so is its default"),
    ],
)
def test_the_affinity_mask_selects(mask: str, expected: list[int], reason: str) -> None:
    assert intel(ZE_AFFINITY_MASK=mask) == expected, reason


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("level_zero:1", [2]),
        ("level_zero:0,1", [1, 2]),
        ("level_zero:0.0", [1]),
        ("level_zero:gpu", [1, 2, 0]),
        ("LEVEL_ZERO:*", [1, 2, 0]),
        ("*:gpu", [1, 2, 0]),
    ],
)
def test_a_simple_device_selector_selects(selector: str, expected: list[int]) -> None:
    assert intel(ONEAPI_DEVICE_SELECTOR=selector) == expected


def test_selector_indices_count_within_the_mask() -> None:
    assert intel(ZE_AFFINITY_MASK="1,2", ONEAPI_DEVICE_SELECTOR="level_zero:1") == [0]


@pytest.mark.parametrize("selector", ["opencl:cpu", "level_zero:0;opencl:gpu", "!level_zero:0", "*:*.*"])
def test_an_unsupported_selector_selects_all_and_is_reported(selector: str) -> None:
    found = select_intel({"ONEAPI_DEVICE_SELECTOR": selector}, "visible", INTEL)
    assert len(found.chosen) == 3
    assert (
        found.doubt == f"ONEAPI_DEVICE_SELECTOR={selector} is not supported here, so all Intel GPUs are shown"
    )


def test_an_empty_cuda_variable_hides_intel_gpus_unless_theirs_is_set() -> None:
    assert intel(CUDA_VISIBLE_DEVICES="") == []
    assert intel(CUDA_VISIBLE_DEVICES="", ZE_AFFINITY_MASK="0") == [1]
    assert intel(CUDA_VISIBLE_DEVICES="0") == [1, 2, 0]


def test_a_container_without_nvidia_gpus_may_have_intel_and_amd_gpus() -> None:
    assert intel(NVIDIA_VISIBLE_DEVICES="none") == [1, 2, 0]
    assert amd(NVIDIA_VISIBLE_DEVICES="none") == [0, 1, 2, 3]


def test_a_user_list_selects_intel_gpus_by_index_or_address() -> None:
    found = select_intel({}, "0,0000:83:00.0", INTEL)
    assert found.chosen == (Chosen(0, 0), Chosen(2, 2))
