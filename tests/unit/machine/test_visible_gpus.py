"""GPUs that CUDA would show on a host with eight, by its documented rules, or as PyTorch reads the rest."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_every_gpu, hides_nvidia_gpus
from mlflow_sysmetrics.machine.visible_gpus.intel import select_intel
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, Selection

UUIDS = (
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6",
    "GPU-b5a4c1d0-77e2-4106-c12f-20bd9faed9f6",
    "GPU-c0ffee00-0003-4106-c12f-20bd9faed9f6",
    "GPU-d00df00d-0004-4106-c12f-20bd9faed9f6",
    "GPU-e0e0e0e0-0005-4106-c12f-20bd9faed9f6",
    "GPU-f1f1f1f1-0006-4106-c12f-20bd9faed9f6",
    "GPU-0a0a0a0a-0007-4106-c12f-20bd9faed9f6",
)
EIGHT = tuple(GpuId(index, uuid) for index, uuid in enumerate(UUIDS))
ALL = list(range(8))


def selection(environ: Mapping[str, str], *, same_model: bool = True, wanted: str = "visible") -> Selection:
    return select_nvidia(environ, wanted, EIGHT, same_model=same_model)


def shown(environ: Mapping[str, str]) -> list[int]:
    """Returns the NVML indices of CUDA's devices 0, 1, 2..."""
    chosen = selection(environ).chosen
    assert [one.ordinal for one in chosen] == list(range(len(chosen)))
    return [one.index for one in chosen]


@pytest.mark.parametrize(
    ("listed", "expected", "reason"),
    [
        ("0,1,2,3,4,5,6,7", ALL, "every device, in NVML's order"),
        ("0,1", [0, 1], "a list of indices"),
        ("2,0", [2, 0], "CUDA's device 0 is the first of the list"),
        ("7", [7], "one device becomes device 0"),
        ("", [], "the guide: empty means none"),
        (" ", [], "a blank is no index"),
        ("-1", [], "an invalid index, and nothing before it"),
        ("-1,0", [], "what follows an invalid index is not visible"),
        ("0,2,-1,1", [0, 2], "the guide's own example"),
        ("0,8,1", [0], "there is no device 8, so the list ends"),
        ("8", [], "there is no device 8"),
        ("99999999999999999999,0", [], "more digits than any index"),
        (" 1 , 0 ", [1, 0], "blanks around an index do not count"),
        ("0,,1", [0], "an empty entry is invalid"),
        ("0,1,", [0, 1], "so is the one after the last comma"),
        ("00,01", [0, 1], "leading zeros are read in tens"),
        ("1,1", [], "a device named twice makes the list empty"),
        ("0,1,0", [], "also when others lie between"),
        ("0,8,8", [], "PyTorch looks for repetitions before it asks for devices"),
        ("0,-1,0", [0], "but not behind the end of the list"),
        ("GPU-b5a4c1d0-77e2-4106-c12f-20bd9faed9f6", [2], "a whole UUID"),
        ("GPU-b5,GPU-8932f", [2, 0], "beginnings of UUIDs, in the order of the list"),
        ("GPU-b5,GPU-8932", [2], "two GPUs begin with GPU-8932, so the list ends"),
        ("GPU-8932,GPU-b5", [], "it ends before its first device"),
        ("GPU-", [], "all of them begin with it"),
        ("GPU-ffffffff,GPU-b5", [], "no GPU begins with it"),
        ("GPU-b5,GPU-b5", [], "an entry twice"),
        ("GPU-b5,GPU-b5a4", [], "two entries for one GPU"),
        ("gpu-b5", [], "neither index nor UUID"),
        ("NoDevFiles", [], "what Slurm sets for a job without GPUs"),
        ("none", [], "garbage"),
        ("0,gpu1", [0], "garbage ends the list"),
        ("0;1", [0], "only the leading digits count"),
        ("MIG-3e209540-03e2-5edb-8798-51d4967218c9", [], "no slice of this name"),
        ("all", [], "a word of the container toolkit's, not of CUDA's"),
        ("\u0661", [], "a digit, but not an ASCII one"),
    ],
)
def test_cuda_visible_devices_selects(listed: str, expected: list[int], reason: str) -> None:
    assert shown({"CUDA_VISIBLE_DEVICES": listed}) == expected, reason


@pytest.mark.parametrize(
    ("listed", "expected", "reason"),
    [
        ("1gpu2,2ampere", [1, 2], "PyTorch: something like strtoul, which stops where the digits do"),
        ("+1,-0,5", [1, 0, 5], "a sign is part of a number"),
        ("0x1", [0], "in tens, so the digits end at x; CUDA may read it in sixteens"),
        ("1gpu,1", [], "the same number twice"),
        ("GPU-b5,1", [2], "the first entry decides that UUIDs follow"),
        ("GPU-b5, GPU-8932f", [2], "a blank does not begin a UUID"),
        ("0,GPU-b5", [0], "the first entry decides that indices follow"),
        (" GPU-b5", [], "with the blank it is no UUID, and no index either"),
    ],
)
def test_an_ambiguous_list_is_read_as_by_pytorch_and_reported(
    listed: str, expected: list[int], reason: str
) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": listed}
    assert shown(environ) == expected, reason
    assert "is ambiguous: list only indices, or only UUIDs" in (selection(environ).doubt or "")


@pytest.mark.parametrize("listed", ["0,1", "2,0", "", "-1", "0,,1", "GPU-b5,GPU-c0", "GPU-b5,", "NoDevFiles"])
def test_a_plain_list_is_unambiguous(listed: str) -> None:
    assert selection({"CUDA_VISIBLE_DEVICES": listed}).gaps == ()


def test_a_slice_not_listed_by_nvml_is_reported() -> None:
    doubt = selection({"CUDA_VISIBLE_DEVICES": "MIG-3e20"}).doubt
    assert doubt == "CUDA_VISIBLE_DEVICES names a MIG device that is not listed"


@pytest.mark.parametrize(("listed", "expected"), [("GPU-B5", []), ("GPU-c0,GPU-8932F9,GPU-b5", [3])])
def test_a_uuid_in_capitals_does_not_match_and_is_reported(listed: str, expected: list[int]) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": listed}
    assert shown(environ) == expected
    assert "a UUID in capitals: write it as nvidia-smi -L does" in (selection(environ).doubt or "")


@pytest.mark.parametrize("listed", ["GPU-8932,GPU-B5", "GPU-b5,GPU-FFFF", "GPU-b5,GPU-B5FF"])
def test_capitals_that_change_nothing_are_not_reported(listed: str) -> None:
    assert selection({"CUDA_VISIBLE_DEVICES": listed}).doubt is None


@pytest.mark.parametrize(
    ("listed", "doubtful", "reason"),
    [
        (None, True, "device 2 may be CUDA's device 1"),
        ("2", True, "index 2 may be CUDA's device 3"),
        ("0", False, "what comes before is counted either way"),
        ("GPU-b5", False, "a UUID is not counted"),
        ("1", True, "it is the one that does not answer"),
    ],
)
def test_an_unresponsive_gpu_makes_later_indices_ambiguous(
    listed: str | None, doubtful: bool, reason: str
) -> None:
    devices = (EIGHT[0], GpuId(1, ""), EIGHT[2])
    environ = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    doubt = select_nvidia(environ, "visible", devices, same_model=True).doubt
    assert (doubt is not None and doubt.startswith("GPU 1 does not report its UUID")) is doubtful, reason


def test_without_the_variable_all_gpus_are_visible() -> None:
    assert shown({}) == ALL


def test_a_host_without_gpus_selects_none() -> None:
    assert select_nvidia({"CUDA_VISIBLE_DEVICES": "0"}, "visible", (), same_model=True) == Selection()


def test_a_single_gpu_matches_the_shortest_prefix() -> None:
    found = select_nvidia({"CUDA_VISIBLE_DEVICES": "GPU-"}, "visible", EIGHT[:1], same_model=True)
    assert found.chosen == (Chosen(0, 0),)


def test_a_gpu_without_a_uuid_matches_only_its_index() -> None:
    devices = (GpuId(0, ""), GpuId(1, "GPU-8932f937"))
    by_index = select_nvidia({"CUDA_VISIBLE_DEVICES": "0"}, "visible", devices, same_model=True)
    by_uuid = select_nvidia({"CUDA_VISIBLE_DEVICES": "GPU-8"}, "visible", devices, same_model=True)
    assert [one.index for one in (*by_index.chosen, *by_uuid.chosen)] == [0, 1]


def test_the_process_selection_starts_from_visible_gpus() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "2,0"}
    assert selection(environ, wanted="process") == selection(environ)


def test_a_selection_counts_its_ordinals_for_the_next_vendor() -> None:
    assert selection({"CUDA_VISIBLE_DEVICES": "5,3"}).places == 2
    assert Selection().places == 0


@pytest.mark.parametrize("order", [{}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}])
def test_different_models_in_the_default_cuda_order_are_ambiguous(order: dict[str, str]) -> None:
    found = selection(order, same_model=False)
    assert [one.index for one in found.chosen] == ALL
    assert found.doubt == (
        "CUDA_DEVICE_ORDER is FASTEST_FIRST and the GPUs differ, so their numbers follow NVML's order, "
        "which may differ from CUDA's: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": "GPU-b5,GPU-c0"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "9"},
    ],
)
def test_different_models_are_unambiguous_if_order_is_irrelevant(environ: dict[str, str]) -> None:
    assert selection(environ, same_model=False).doubt is None


@pytest.mark.parametrize(
    "value", ["all", "void", "", "0", "GPU-b5a4c1d0", "/var/run/nvidia-container-devices"]
)
def test_the_container_toolkit_variable_does_not_filter(value: str) -> None:
    assert shown({"NVIDIA_VISIBLE_DEVICES": value}) == ALL


def test_a_container_that_requested_no_gpus_has_none() -> None:
    assert shown({"NVIDIA_VISIBLE_DEVICES": "none"}) == []


@pytest.mark.parametrize(
    ("environ", "nvidias", "every"),
    [
        ({}, False, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False, False),
        ({"CUDA_VISIBLE_DEVICES": "7"}, False, False),
        ({"CUDA_VISIBLE_DEVICES": " GPU-b5"}, False, False),
        ({"CUDA_VISIBLE_DEVICES": "1,1"}, True, False),  # HIP shows device 1
        ({"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "0"}, True, True),  # HIP reads both
        ({"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "0"}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "0"}, True, False),
        ({"CUDA_VISIBLE_DEVICES": "", "ZE_AFFINITY_MASK": "0"}, True, False),
        ({"CUDA_VISIBLE_DEVICES": "", "ZE_AFFINITY_MASK": ""}, True, True),
        ({"CUDA_VISIBLE_DEVICES": "", "ONEAPI_DEVICE_SELECTOR": "level_zero:0"}, True, False),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, True, False),  # NVIDIA's GPUs only
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, False, False),
    ],
    ids=str,
)
def test_detects_an_environment_that_hides_all_gpus(
    environ: dict[str, str], nvidias: bool, every: bool
) -> None:
    assert hides_nvidia_gpus(environ) is nvidias
    assert hides_every_gpu(environ, "visible") is every
    if every:  # then the rules of no vendor show a GPU, even on a machine with many
        amd, intel = [f"GPU-{index:016x}" for index in range(1, 9)], [f"0000:0{i}:00.0" for i in range(8)]
        assert selection(environ).chosen == ()
        assert select_amd(environ, "visible", amd).chosen == ()
        assert select_intel(environ, "visible", intel).chosen == ()


def test_selecting_all_overrides_hiding() -> None:
    assert not hides_every_gpu({"CUDA_VISIBLE_DEVICES": ""}, "all")


def test_ambiguous_indices_of_different_models_select_none() -> None:
    """CUDA's first device may be the host's second: the curve would belong to another job."""
    found = selection({"CUDA_VISIBLE_DEVICES": "0"}, same_model=False)
    assert found.chosen == ()
    assert found.doubt == (
        "CUDA_DEVICE_ORDER is FASTEST_FIRST and the GPUs differ, so CUDA_VISIBLE_DEVICES may mean other GPUs: "
        "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name UUIDs"
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": EIGHT[1].uuid},
    ],
)
def test_an_order_or_a_uuid_makes_different_models_unambiguous(environ: dict[str, str]) -> None:
    found = selection(environ, same_model=False)
    assert ([one.index for one in found.chosen], found.doubt) == ([1], None)
