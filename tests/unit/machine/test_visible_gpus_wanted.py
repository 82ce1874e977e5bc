"""MLFLOW_SYSMETRICS_GPUS: accepted values and the devices they select."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import (
    Chosen,
    GpuId,
    Selection,
    follows_environment,
    without_indices,
)
from mlflow_sysmetrics.settings import GPUS, Settings

FOUR = tuple(GpuId(index, uuid) for index, uuid in enumerate(("GPU-aa11", "GPU-aa22", "GPU-bb33", "")))


def listed(wanted: str) -> Selection:
    # The variable of the job must not matter: the user selects devices of the host.
    environ = {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    return select_nvidia(environ, wanted, FOUR, same_model=False)


def test_a_list_keeps_the_index_of_each_gpu() -> None:
    assert listed("1,3") == Selection((Chosen(1, 1), Chosen(3, 3)))


def test_order_and_repetitions_in_a_list_do_not_matter() -> None:
    assert listed(" 3, GPU-AA22 ,1,") == listed("1,3")


def test_all_selects_every_gpu() -> None:
    assert [one.index for one in listed("All").chosen] == [0, 1, 2, 3]


def test_missing_gpus_are_reported() -> None:
    found = listed("0,7,GPU-cc,GPU-aa")
    assert found.chosen == (Chosen(0, 0),)
    assert found.gaps == (
        "MLFLOW_SYSMETRICS_GPUS: 7 matches none of this host's NVIDIA GPUs",
        "MLFLOW_SYSMETRICS_GPUS: GPU-cc matches none of this host's NVIDIA GPUs",
        "MLFLOW_SYSMETRICS_GPUS: GPU-aa matches more than one of this host's NVIDIA GPUs",
    )


def test_a_host_without_devices_selects_none() -> None:
    assert select_nvidia({}, "all", (), same_model=True) == Selection()


@pytest.mark.parametrize(
    ("wanted", "follows"), [("visible", True), ("Process", True), ("all", False), ("0", False)]
)
def test_visible_and_process_follow_the_environment(wanted: str, follows: bool) -> None:
    assert follows_environment(wanted) is follows


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", "visible"),
        ("visible", "visible"),
        (" ALL ", "all"),
        ("process", "process"),
        ("0, 2", "0,2"),
        ("GPU-8932f937,MIG-3e20,gpu-b5", "GPU-8932f937,MIG-3e20,gpu-b5"),
        ("MIG-GPU-8932f937/1/0", "MIG-GPU-8932f937/1/0"),
        ("0000:03:00.0", "0000:03:00.0"),
    ],
)
def test_parses_the_variable(text: str, gpus: str) -> None:
    assert Settings.from_environ({GPUS: text}).gpus == gpus


@pytest.mark.parametrize(
    ("text", "word", "used"),
    [
        ("first", "first", "visible"),
        ("0,last,2", "last", "0,2"),
        ("all,0", "all", "0"),
        ("-1", "-1", "visible"),
        ("GPU-", "GPU-", "visible"),
    ],
)
def test_an_invalid_entry_is_ignored_with_a_warning(
    text: str, word: str, used: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.from_environ({GPUS: text}).gpus == used
    (record,) = caplog.records
    assert f"MLFLOW_SYSMETRICS_GPUS='{word}' is ignored, using {used}: " in record.message


@pytest.mark.parametrize("gpus", ["first", "", ",", "0,last", None])
def test_an_invalid_entry_in_code_is_an_error(gpus: str) -> None:
    with pytest.raises(SettingsError, match="gpus must be one of visible, process, all or a list"):
        Settings(gpus=gpus)


def test_code_may_pass_a_list() -> None:
    assert Settings(gpus="0,GPU-8932f937").gpus == "0,GPU-8932f937"


@pytest.mark.parametrize(
    ("wanted", "rest"),
    [("visible", "visible"), ("all", "all"), ("0,3", ""), ("0,GPU-8932f937, 1", "GPU-8932f937")],
)
def test_indices_refer_to_one_vendor(wanted: str, rest: str) -> None:
    assert without_indices(wanted) == rest
