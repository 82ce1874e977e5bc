"""Tags and metrics describe the same devices, whichever queries a driver fails."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from facts_machines import machine, tools

from fake_gpu import ERRORS
from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.collectors.drm.watched_gpus import watched_amd_devices, watched_intel_cards
from mlflow_sysmetrics.collectors.nvml.devices import Devices
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import drm_gpus, nvml_gpus
from mlflow_sysmetrics.facts.values import GpuReport
from mlflow_sysmetrics.machine.host import Host
from recorded import HOSTS, revive

pytestmark = pytest.mark.exhaustive

ENUMERATION = (
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetMemoryInfo",
)
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {"CUDA_VISIBLE_DEVICES": "2,0"},
    {"CUDA_VISIBLE_DEVICES": "GPU-cccc,MIG-2222"},
    {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    {"NVIDIA_VISIBLE_DEVICES": "none"},
)


def three_gpus() -> FakeNvml:
    slices = (FakeGpu("A100 MIG 1g.5gb", "MIG-1111", 1), FakeGpu("A100 MIG 1g.5gb", "MIG-2222", 1))
    return FakeNvml(
        FakeGpu("T4", "GPU-aaaa", 1),
        FakeGpu("A100", "GPU-bbbb", 1, slices=slices),
        FakeGpu("T4", "GPU-cccc", 1),
        driver="535.183.01",
    )


def of_the_metrics(host: Host) -> tuple[list[str], str]:
    """Returns the UUIDs of the devices that the collector watches, and its first gap."""
    watched: list[str] = []
    try:
        devices = Devices(host, lambda _, device, __: watched.append(device.uuid) or ())
    except Unavailable as reason:
        return [], str(reason)
    return watched, "; ".join(devices.gaps)


def of_the_tags(host: Host) -> tuple[list[str], str]:
    try:
        report = nvml_gpus.gpus(host, tools())
    except Unavailable as reason:
        return [], str(reason)
    return [gpu.uuid or "" for gpu in report.gpus], "; ".join(report.problems)


@pytest.mark.parametrize("uuid", ["GPU-aaaa", "GPU-bbbb", "MIG-1111", None])
@pytest.mark.parametrize("function", ENUMERATION)
def test_tags_and_metrics_agree_if_nvml_fails(tmp_path: Path, uuid: str | None, function: str) -> None:
    for environ, wanted in itertools.product(ENVIRONMENTS, ("visible", "all", "0,MIG-2222,7")):
        fake = three_gpus()
        fake.fail(function, 999, uuid)
        host = replace(machine(tmp_path, environ=environ, nvml=fake), gpus=wanted)
        metrics, missing = of_the_metrics(host)
        tags, problems = of_the_tags(host)
        case = (environ, wanted)
        # What does not say what it is has a clause, and no name that could be a tag.
        assert tags == [one for one in metrics if one in tags], case
        assert all(
            "does not answer" in problems or "NVML error" in problems for one in metrics if one not in tags
        ), case
        assert [gap for gap in missing.split("; ") if gap and gap not in problems] in (
            [],
            ["NVML: no device that this job may see"],
        ), case


@pytest.mark.parametrize("function", ENUMERATION[3:])
def test_tags_and_metrics_name_the_same_devices(tmp_path: Path, function: str) -> None:
    fake = three_gpus()
    fake.fail(function, 999)
    host = machine(tmp_path, nvml=fake)
    assert of_the_tags(host)[0] == of_the_metrics(host)[0] != []


def test_a_sliced_gpu_without_a_name_is_still_sliced(tmp_path: Path) -> None:
    fake = three_gpus()
    fake.fail("nvmlDeviceGetName", 999, "GPU-bbbb")
    host = machine(tmp_path, nvml=fake, environ={"CUDA_VISIBLE_DEVICES": "MIG-2222"})
    assert of_the_tags(host) == (["MIG-2222"], "")


def test_a_slice_without_a_uuid_is_excluded(tmp_path: Path) -> None:
    nameless = FakeGpu("A100 MIG 1g.5gb", ERRORS[999](), 1)
    known = FakeGpu("A100 MIG 1g.5gb", "MIG-2222", 1)
    host = machine(tmp_path, nvml=FakeNvml(FakeGpu("A100", "GPU-1", 1, slices=(nameless, known))))
    assert of_the_tags(host)[0] == of_the_metrics(host)[0] == ["MIG-2222"]


def test_an_unresponsive_gpu_makes_later_ordinals_ambiguous(tmp_path: Path) -> None:
    fake = FakeNvml(FakeGpu("T4", "GPU-aaaa", 1, lost=True), FakeGpu("T4", "GPU-bbbb", 1))
    report = nvml_gpus.gpus(machine(tmp_path, nvml=fake), tools())
    assert [gpu.uuid for gpu in report.gpus] == [None, "GPU-bbbb"]
    doubt, lost = report.problems
    assert doubt.startswith("GPU 0 does not report its UUID, so CUDA may not count it: name the others by")
    assert lost == "GPU 0: GPU is lost: reset it or reboot"


@pytest.fixture(scope="module")
def revived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Host]:
    """Revives each recorded machine once: these tests only read it."""
    return functools.cache(lambda recorded: revive(recorded, tmp_path_factory.mktemp(recorded.name)))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "1,1"},
        {"NVIDIA_VISIBLE_DEVICES": "none"},
        {"ROCR_VISIBLE_DEVICES": "1,0"},
        {"HIP_VISIBLE_DEVICES": "1"},
        {"ZE_AFFINITY_MASK": "0"},
        {"ONEAPI_DEVICE_SELECTOR": "level_zero:1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("wanted", ["visible", "process", "all", "1"])
@pytest.mark.parametrize(
    "recorded",
    [path for path in HOSTS if path.name.startswith(("amd-", "intel-"))],
    ids=lambda path: path.name,
)
def test_tags_and_metrics_agree_on_amd_and_intel_cards(
    recorded: Path, wanted: str, environ: dict[str, str], revived: Callable[[Path], Host]
) -> None:
    host = replace(revived(recorded), environ=environ, gpus=wanted)
    report: GpuReport = drm_gpus.gpus(host, tools())
    watched: list[str] = []
    try:
        devices, _ = watched_amd_devices(host)
        watched += [device.uuid for _, device in sorted(devices.items())]
    except Unavailable:
        pass
    try:
        cards, _ = watched_intel_cards(host)
        watched += [""] * len(cards)
    except Unavailable:
        pass
    assert [gpu.uuid or "" for gpu in report.gpus] == watched
