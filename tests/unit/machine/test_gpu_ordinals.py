"""Ordinals of GPUs in keys, across vendors and runs."""

from __future__ import annotations

from mlflow_sysmetrics.machine.visible_gpus.selection import GpuOrdinals


def test_ordinals_of_vendors_are_consecutive() -> None:
    ordinals = GpuOrdinals()
    assert [ordinals.first("nvidia", 2), ordinals.first("amd", 3), ordinals.first("intel", 1)] == [0, 2, 5]
    assert ordinals.first("amd", 1) == 2


def test_a_device_is_found_by_any_spelling_of_its_uuid() -> None:
    ordinals = GpuOrdinals()
    ordinals.assign("GPU-ab12", 1)
    assert (ordinals.of("AB12"), ordinals.uuid(1)) == (1, "GPU-ab12")


def test_reassigning_an_ordinal_forgets_the_earlier_device() -> None:
    ordinals = GpuOrdinals()
    ordinals.assign("GPU-aaaa", 0)
    ordinals.assign("GPU-bbbb", 0)
    assert (ordinals.of("aaaa"), ordinals.of("bbbb"), ordinals.uuid(0)) == (None, 0, "GPU-bbbb")
