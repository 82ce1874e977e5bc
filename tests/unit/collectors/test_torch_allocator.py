"""The memory statistics of torch, from a fake of torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.collectors.torch_allocator import TorchAllocator, parse_rocm_uuid, parse_stats
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuOrdinals

MI300X = "65303434-3830-3136-3839-323537666234"
UUIDS = ("ffc79498-8ff3-c2dc-3b0d-fafd804516ae", "00000000-0000-0000-0000-00000000000b")


def stats(allocated: object, reserved: object) -> dict[str, Any]:
    """Returns torch statistics: the relevant ones among others."""
    return {
        "allocated_bytes": {"all": {"current": allocated, "peak": 9e9}, "small_pool": {"current": 1}},
        "reserved_bytes": {"all": {"current": reserved, "peak": 9e9}, "small_pool": {"current": 1}},
        "num_ooms": 0,
    }


class FakeCuda(ModuleType):
    """Replaces torch.cuda after CUDA was initialized on two devices; the first is in use."""

    def __init__(self) -> None:
        super().__init__("torch.cuda")
        self.started: object = True
        self.backend = "native"
        self.count: Exception | None = None
        self.memory: list[Mapping[str, Any] | Exception] = [stats(3_000_000, 5_000_000), stats(0, 0)]
        self.uuids: list[str | Exception | None] = list(UUIDS)
        self.asked: list[int] = []

    def is_initialized(self) -> object:
        return self.started

    def device_count(self) -> int:
        if isinstance(self.count, Exception):
            raise self.count
        return len(self.memory)

    def get_allocator_backend(self) -> str:
        return self.backend

    def memory_stats_as_nested_dict(self, device: int) -> Mapping[str, Any]:
        self.asked.append(device)
        memory = self.memory[device]
        if isinstance(memory, Exception):
            raise memory
        return memory

    def get_device_properties(self, device: int) -> SimpleNamespace:
        uuid = self.uuids[device]
        if isinstance(uuid, Exception):
            raise uuid
        return SimpleNamespace() if uuid is None else SimpleNamespace(uuid=uuid)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.setitem(sys.modules, "torch.cuda", made)
    version = ModuleType("torch.version")
    version.hip = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.version", version)
    return made


def said(collector: TorchAllocator, now: float = 0.0) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(now)}


def shown(collector: TorchAllocator, now: float = 0.0) -> set[int]:
    """Returns the ordinals that have series."""
    return {int(key.split("_")[1]) for key in said(collector, now)}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (stats(1, 2), (1, 2)),
        (stats(0, 0), (0, 0)),
        ({}, None),
        ({"allocated_bytes": {"all": {"current": 1}}}, None),
        ({"allocated_bytes": None}, None),
        (stats(None, 2), None),
        (stats(-1, 2), None),
        (stats(1, -2), None),
    ],
)
def test_reads_two_numbers_from_the_statistics_of_torch(
    given: Mapping[str, Any], found: tuple[int, int] | None
) -> None:
    assert parse_stats(given) == found


def test_without_torch_there_is_no_value_and_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.cuda", raising=False)
    collector = TorchAllocator(Host())
    assert said(collector) == {}
    assert collector.gaps == ()


@pytest.mark.heavy
def test_torch_is_never_imported() -> None:
    program = """
import sys
sys.path[:0] = PATHS
class Finder:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("torch"), name
sys.meta_path.insert(0, Finder())
from mlflow_sysmetrics.collectors.torch_allocator import TorchAllocator
from mlflow_sysmetrics.machine.host import Host
assert list(TorchAllocator(Host()).collect(0.0)) == []
"""
    program = program.replace("PATHS", repr(sys.path))  # entries of PYTHONPATH may be relative
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_nothing_is_reported_before_cuda_is_initialized(cuda: FakeCuda) -> None:
    cuda.started = False
    collector = TorchAllocator(Host())
    assert said(collector) == {}
    assert cuda.asked == []
    assert collector.gaps == ()


def test_a_mock_of_torch_is_ignored(cuda: FakeCuda) -> None:
    cuda.started = ModuleType("mock")
    assert said(TorchAllocator(Host())) == {}
    assert cuda.asked == []


def test_a_partially_imported_torch_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.cuda", ModuleType("torch.cuda"))
    assert said(TorchAllocator(Host())) == {}


def test_a_lazy_module_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            pytest.fail(f"{name} would have loaded torch")

    monkeypatch.delitem(sys.modules, "torch.cuda", raising=False)
    monkeypatch.setitem(sys.modules, "torch", Lazy("torch"))
    assert said(TorchAllocator(Host())) == {}


def test_reports_the_memory_of_the_device_in_use(cuda: FakeCuda) -> None:
    del cuda
    assert said(TorchAllocator(Host())) == {
        "gpu_0_torch_allocated_megabytes": 3,
        "gpu_0_torch_reserved_megabytes": 5,
    }


def test_cuda_initialized_later_is_noticed_immediately(cuda: FakeCuda) -> None:
    cuda.started = False
    collector = TorchAllocator(Host())
    said(collector, 0.0)
    assert collector.cumulative, "nothing to read between two points"
    cuda.started = True
    assert said(collector, 1.0)
    assert not collector.cumulative


def test_a_newly_used_device_is_noticed_at_the_next_scan(cuda: FakeCuda) -> None:
    collector = TorchAllocator(Host())
    assert shown(collector, 0.0) == {0}
    cuda.memory[1] = stats(1, 1)
    assert shown(collector, 4.0) == {0}
    assert shown(collector, 5.0) == {0, 1}


def test_between_scans_only_devices_in_use_are_queried(cuda: FakeCuda) -> None:
    collector = TorchAllocator(Host())
    said(collector, 0.0)
    cuda.asked.clear()
    said(collector, 1.0)
    assert cuda.asked == [0]


def test_a_device_without_reserved_memory_yields_nothing(cuda: FakeCuda) -> None:
    collector = TorchAllocator(Host())
    said(collector, 0.0)
    cuda.memory[0] = stats(0, 0)
    assert said(collector, 1.0) == {}


def test_reserved_memory_is_reported_without_tensors(cuda: FakeCuda) -> None:
    cuda.memory[0] = stats(0, 5_000_000)
    assert said(TorchAllocator(Host()))["gpu_0_torch_allocated_megabytes"] == 0


def test_a_device_known_by_uuid_shares_the_ordinal_of_its_other_series(cuda: FakeCuda) -> None:
    ordinals = GpuOrdinals()
    ordinals.assign(f"GPU-{UUIDS[1].upper()}", 0)
    ordinals.assign(f"GPU-{UUIDS[0]}", 1)
    cuda.memory[1] = stats(8_000_000, 8_000_000)
    found = said(TorchAllocator(Host(gpu_ordinals=ordinals)))
    assert found["gpu_0_torch_reserved_megabytes"] == 8
    assert found["gpu_1_torch_reserved_megabytes"] == 5


@pytest.mark.parametrize("uuid", [None, AssertionError("Invalid device id"), RuntimeError("CUDA error")])
def test_without_a_uuid_the_index_of_torch_is_the_ordinal(
    cuda: FakeCuda, uuid: str | Exception | None
) -> None:
    cuda.uuids[0] = uuid
    ordinals = GpuOrdinals()
    ordinals.assign(f"GPU-{UUIDS[0]}", 0)
    assert shown(TorchAllocator(Host(gpu_ordinals=ordinals))) == {0}


def test_the_uuid_of_the_parent_gpu_does_not_hide_a_slice(cuda: FakeCuda) -> None:
    del cuda
    ordinals = GpuOrdinals()
    ordinals.assign("MIG-11111111-2222-3333-4444-555555555555", 0)
    assert shown(TorchAllocator(Host(gpu_ordinals=ordinals))) == {0}


def test_the_ordinal_of_another_device_is_not_reused(cuda: FakeCuda) -> None:
    del cuda
    ordinals = GpuOrdinals()
    ordinals.assign(f"GPU-{UUIDS[1]}", 0)
    collector = TorchAllocator(Host(gpu_ordinals=ordinals))
    assert said(collector) == {}
    assert collector.gaps == ("torch's cuda:0 is not among the watched GPUs",)


@pytest.mark.parametrize("gpus", ["all", "1,3"])
def test_an_index_of_torch_is_not_a_host_ordinal(cuda: FakeCuda, gpus: str) -> None:
    del cuda
    ordinals = GpuOrdinals()
    collector = TorchAllocator(Host(gpus=gpus, gpu_ordinals=ordinals))
    assert shown(collector, 0.0) == set()
    ordinals.assign(f"GPU-{UUIDS[0]}", 3)
    assert shown(collector, 5.0) == {3}


@pytest.mark.parametrize(("hip", "first"), [(None, 0), ("6.2.41133", 2)])
def test_ordinals_of_a_rocm_build_follow_nvidia_devices(cuda: FakeCuda, hip: str | None, first: int) -> None:
    cuda.uuids[0] = None
    sys.modules["torch.version"].hip = hip  # type: ignore[attr-defined]
    ordinals = GpuOrdinals()
    ordinals.first("nvidia", 2)
    ordinals.first("amd", 1)
    ordinals.assign("GPU-8a2d1f3c55aa0001", 2)
    assert shown(TorchAllocator(Host(gpu_ordinals=ordinals))) == {first}


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (MI300X, "e044801689257fb4"),
        ("58580000-0000-0000-0000-000000000000", None),  # "XX": a GPU without one
        (UUIDS[0], None),
        ("", None),
    ],
)
def test_a_rocm_uuid_is_decoded_from_ascii(text: str, uuid: str | None) -> None:
    assert parse_rocm_uuid(text) == uuid


def test_a_rocm_device_is_identified_by_its_uuid(cuda: FakeCuda) -> None:
    cuda.uuids[0] = MI300X
    sys.modules["torch.version"].hip = "6.4"  # type: ignore[attr-defined]
    ordinals = GpuOrdinals()
    ordinals.assign("GPU-e044801689257fb4", 3)
    assert shown(TorchAllocator(Host(gpus="all", gpu_ordinals=ordinals))) == {3}


@pytest.mark.parametrize(("gpus", "ordinals_shown"), [("visible", {0, 1}), ("all", {1})])
def test_parts_of_a_gpu_with_one_uuid_have_distinct_keys(
    cuda: FakeCuda, gpus: str, ordinals_shown: set[int]
) -> None:
    cuda.uuids = [UUIDS[0], UUIDS[0]]
    cuda.memory[1] = stats(1, 1)
    ordinals = GpuOrdinals()
    for ordinal in (0, 1):
        ordinals.assign(f"GPU-{UUIDS[0]}", ordinal)
    keys = [one.key for one in TorchAllocator(Host(gpus=gpus, gpu_ordinals=ordinals)).collect(0.0)]
    assert len(keys) == len(set(keys))
    assert {int(key.split("_")[1]) for key in keys} == ordinals_shown


def test_an_unknown_device_count_is_a_gap(cuda: FakeCuda) -> None:
    cuda.count = RuntimeError("CUDA error")
    collector = TorchAllocator(Host())
    assert said(collector) == {}
    assert collector.gaps == ("torch does not report its number of devices",)


@pytest.mark.parametrize("backend", ["cudaMallocAsync", "pluggable"])
def test_a_foreign_allocator_is_not_queried(cuda: FakeCuda, backend: str) -> None:
    cuda.backend = backend
    collector = TorchAllocator(Host())
    assert said(collector) == {}
    assert cuda.asked == []
    assert collector.gaps == (f"torch's memory is unknown: its allocator is {backend}",)


def test_a_torch_without_backend_names_uses_its_own_allocator(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeCuda, "get_allocator_backend")
    assert cuda.started
    assert shown(TorchAllocator(Host())) == {0}


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), AttributeError("no such function")])
def test_a_failing_device_affects_no_other_and_recovers(cuda: FakeCuda, error: Exception) -> None:
    cuda.memory = [error, stats(1, 1)]
    collector = TorchAllocator(Host())
    assert shown(collector, 0.0) == {1}
    assert collector.gaps == ("torch does not report its memory on cuda:0",)
    cuda.memory[0] = stats(1, 1)
    assert shown(collector, 5.0) == {0, 1}
    assert collector.gaps == ()


def test_a_device_that_fails_between_scans_is_absent(cuda: FakeCuda) -> None:
    collector = TorchAllocator(Host())
    said(collector, 0.0)
    cuda.memory[0] = RuntimeError("CUDA error")
    assert said(collector, 1.0) == {}


def test_a_uuid_from_torch_needs_no_gpu_prefix() -> None:
    ordinals = GpuOrdinals()
    ordinals.assign("GPU-FFC79498-8FF3-C2DC-3B0D-FAFD804516AE", 2)
    assert ordinals.of(UUIDS[0]) == 2
    assert ordinals.of(UUIDS[1]) is None


def test_a_child_forked_after_cuda_initialization_reports_nothing(cuda: FakeCuda) -> None:
    collector = TorchAllocator(Host())
    said(collector, 0.0)
    cuda.started = False  # the answer of torch in such a child
    assert said(collector, 1.0) == {}
