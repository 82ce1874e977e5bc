"""Slices that CUDA would show of GPUs in MIG mode, according to NVIDIA's MIG User Guide."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, SliceId

OLD, NEW = "535.183.01", "570.133.20"  # before and since one compute instance of each GPU instance is shown

SEVEN = tuple(SliceId(f"MIG-{index}{index}{index}{index}-aaaa", 7 + index, 0) for index in range(7))
SLICED = GpuId(0, "GPU-c08d91cb-e324", SEVEN, mig=True)
# The guide's H100: three compute instances in one GPU instance, and two GPU instances of one each.
SHARED = GpuId(
    0,
    "GPU-c08d91cb-e324",
    (
        SliceId("MIG-c788539f-c1ea", 2, 0),
        SliceId("MIG-405bbda1-6b05", 2, 1),
        SliceId("MIG-df7e5a27-eeea", 2, 2),
        SliceId("MIG-b4b2228d-6933", 9, 0),
        SliceId("MIG-c71dc464-b9f9", 10, 0),
    ),
    mig=True,
)
WHOLE = GpuId(1, "GPU-0aa11ebd-627f")


def shown(
    *devices: GpuId, listed: str | None = None, driver: str | None = NEW, wanted: str = "visible"
) -> list[str]:
    environ = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    chosen = select_nvidia(environ, wanted, devices, same_model=True, driver=driver).chosen
    return [one.slice.uuid if one.slice else f"whole {one.index}" for one in chosen]


ALL_SEVEN = [piece.uuid for piece in SEVEN]


@pytest.mark.parametrize(
    ("listed", "driver", "expected", "reason"),
    [
        (None, NEW, ALL_SEVEN, "one of each of the seven GPU instances"),
        (None, None, ALL_SEVEN, "a driver of unknown version is taken for a new one"),
        (None, OLD, ALL_SEVEN[:1], "before driver 570 one slice in all"),
        ("0", NEW, ALL_SEVEN, "the index of a sliced GPU means its slices"),
        ("GPU-c08d", NEW, ALL_SEVEN, "so does its UUID"),
        ("0", OLD, ALL_SEVEN[:1], "of which an old driver shows the first"),
        ("MIG-3333-aaaa", NEW, ["MIG-3333-aaaa"], "the slice of this UUID"),
        ("MIG-3", NEW, ["MIG-3333-aaaa"], "the beginning of one"),
        ("MIG-5,MIG-2", NEW, ["MIG-5555-aaaa", "MIG-2222-aaaa"], "in the order of the list"),
        ("MIG-5,MIG-2", OLD, ["MIG-5555-aaaa"], "the first of the list"),
        ("MIG-", NEW, [], "all of them begin with it"),
        ("MIG-9", NEW, [], "none begins with it"),
        ("MIG-3,MIG-33", NEW, [], "one slice named twice"),
        ("MIG-GPU-c08d91cb-e324/9/0", OLD, ["MIG-2222-aaaa"], "the name of a slice before driver 470"),
        ("MIG-GPU-c08d91cb-e324/9/1", OLD, [], "there is no such compute instance"),
        ("1", NEW, [], "slices are not counted"),
    ],
)
def test_seven_slices_of_one_gpu_are_visible(
    listed: str | None, driver: str | None, expected: list[str], reason: str
) -> None:
    assert shown(SLICED, listed=listed, driver=driver) == expected, reason


def test_slices_have_the_ordinals_of_cuda() -> None:
    found = select_nvidia({"CUDA_VISIBLE_DEVICES": "MIG-5,MIG-2"}, "visible", [SLICED], same_model=True)
    assert found.chosen == (Chosen(0, 0, SEVEN[5]), Chosen(1, 0, SEVEN[2]))


def test_one_compute_instance_per_gpu_instance_is_visible() -> None:
    assert shown(SHARED) == ["MIG-c788539f-c1ea", "MIG-b4b2228d-6933", "MIG-c71dc464-b9f9"]


def test_the_first_listed_slice_of_a_gpu_instance_is_visible() -> None:
    assert shown(SHARED, listed="MIG-405b,MIG-c788,MIG-c71d") == ["MIG-405bbda1-6b05", "MIG-c71dc464-b9f9"]


def test_slices_of_unknown_gpu_instances_are_all_visible() -> None:
    pieces = (SliceId("MIG-aa"), SliceId("MIG-bb"))
    assert shown(GpuId(0, "GPU-1", pieces, mig=True)) == ["MIG-aa", "MIG-bb"]


def test_a_whole_gpu_is_visible_next_to_slices() -> None:
    assert shown(SHARED, WHOLE)[-1] == "whole 1"
    assert shown(SHARED, WHOLE, listed="1,0")[:2] == ["whole 1", "MIG-c788539f-c1ea"]
    assert shown(SHARED, WHOLE, listed="GPU-0aa1,MIG-b4b2") == ["whole 1", "MIG-b4b2228d-6933"]


@pytest.mark.parametrize("listed", ["GPU-0aa1,MIG-b4b2", "MIG-b4b2,GPU-0aa1", "GPU-0aa1,MIG-b4b2,GPU-0aa1"])
def test_a_mixed_list_of_gpus_and_slices_is_reported(listed: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": listed}
    found = select_nvidia(environ, "visible", [SHARED, WHOLE], same_model=True, driver=NEW)
    assert (
        found.doubt
        == "CUDA_VISIBLE_DEVICES mixes GPUs and MIG devices, of which PyTorch counts only one kind"
    )


def test_an_old_driver_hides_a_whole_gpu_next_to_slices() -> None:
    assert shown(SHARED, WHOLE, driver=OLD) == ["MIG-c788539f-c1ea"]
    assert shown(SHARED, WHOLE, listed="1,0", driver=OLD) == ["MIG-c788539f-c1ea"]


def test_an_old_driver_shows_whole_gpus_if_no_slice_is_visible() -> None:
    assert shown(SHARED, WHOLE, listed="1", driver=OLD) == ["whole 1"]


def test_the_order_of_slices_and_whole_gpus_is_ambiguous() -> None:
    found = select_nvidia({}, "visible", [SHARED, WHOLE], same_model=True, driver=NEW)
    assert found.doubt is not None
    assert found.doubt.endswith("set CUDA_DEVICE_ORDER=PCI_BUS_ID")


def test_a_gpu_in_mig_mode_without_slices_is_not_visible() -> None:
    assert shown(GpuId(0, "GPU-1", mig=True), WHOLE) == ["whole 1"]


def test_all_lists_gpus_by_index_and_then_slices() -> None:
    found = select_nvidia({"CUDA_VISIBLE_DEVICES": ""}, "all", [SLICED, WHOLE], same_model=True)
    assert found.chosen[:3] == (Chosen(0, 0), Chosen(1, 1), Chosen(2, 0, SEVEN[0]))
    assert [one.ordinal for one in found.chosen] == list(range(9))
    assert found.places == 9


def test_a_slice_in_a_list_keeps_its_number_among_all() -> None:
    found = select_nvidia({}, "MIG-2,1", [SLICED, WHOLE], same_model=True)
    assert found.chosen == (Chosen(1, 1), Chosen(4, 0, SEVEN[2]))
