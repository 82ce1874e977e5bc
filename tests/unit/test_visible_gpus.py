"""Which GPUs CUDA would show, by the rules of the CUDA C++ Programming Guide."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.visible_gpus import hides_all_gpus, mig_entries, visible_gpus

pytestmark = pytest.mark.unit

UUIDS = ("GPU-8932f937-d72c", "GPU-8932aaaa-0000", "GPU-b5a4c1d0-77e2")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0,1,2", [0, 1, 2]),
        ("2,1", [2, 1]),
        (" 1 , 0 ", [1, 0]),
        ("", []),
        (" ", []),
        ("-1", []),
        ("-1,0", []),
        ("0,2,-1,1", [0, 2]),
        ("0,7,1", [0]),
        ("7", []),
        ("0,,1", [0]),
        ("NoDevFiles", []),
        ("0,gpu1", [0]),
        ("1,1", []),
        ("0,1,0", []),
        ("GPU-b5a4c1d0-77e2,GPU-8932f937-d72c", [2, 0]),
        ("GPU-b5", [2]),
        ("GPU-8932", []),
        ("GPU-b5,GPU-8932", [2]),
        ("GPU-ffffffff", []),
        ("gpu-b5", []),
        ("2,GPU-b5", []),
        ("\u0661", []),
    ],
)
def test_cuda_visible_devices(listed: str, expected: list[int]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": listed}, UUIDS) == expected


def test_without_the_variable_all_are_visible() -> None:
    assert visible_gpus({}, UUIDS) == [0, 1, 2]


def test_without_gpus_none_is_visible() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, ()) == []


def test_one_gpu_is_named_by_the_shortest_prefix() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-"}, UUIDS[:1]) == [0]


def test_a_gpu_without_uuid_is_found_by_index_only() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1,GPU-8"}, ("GPU-8932f937", "")) == [1, 0]


@pytest.mark.parametrize("value", ["all", "void", "", "0", "/var/run/nvidia-container-devices"])
def test_the_container_toolkits_variable_does_not_filter(value: str) -> None:
    assert visible_gpus({"NVIDIA_VISIBLE_DEVICES": value}, UUIDS) == [0, 1, 2]


def test_a_container_that_asked_for_no_gpus_has_none() -> None:
    assert visible_gpus({"NVIDIA_VISIBLE_DEVICES": "none"}, UUIDS) == []


@pytest.mark.parametrize(
    ("environ", "hidden"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "7"}, False),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, False),
    ],
)
def test_what_hides_all_gpus_of_any_machine(environ: dict[str, str], hidden: bool) -> None:
    assert hides_all_gpus(environ) is hidden


def test_an_old_mig_entry_names_its_parent() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-GPU-b5a4c1d0-77e2/1/0"}, UUIDS) == [2]


def test_a_new_mig_entry_needs_to_be_told_its_parent() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-11111111-2222"}
    assert visible_gpus(environ, UUIDS) == []
    assert visible_gpus(environ, UUIDS, mig_parents={"MIG-11111111-2222": 1}) == [1]


def test_two_slices_of_one_gpu_are_no_duplicate() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-aa,MIG-bb"}
    assert visible_gpus(environ, UUIDS, mig_parents={"MIG-aa": 0, "MIG-bb": 0}) == [0]


def test_mig_entries_are_those_that_name_slices() -> None:
    assert mig_entries({"CUDA_VISIBLE_DEVICES": "MIG-aa, 1"}) == ("MIG-aa",)
    assert mig_entries({}) == ()
