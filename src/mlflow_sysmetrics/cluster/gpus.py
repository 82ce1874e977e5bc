"""The GPUs and processes of a job on this node: each process may see a GPU of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from mlflow_sysmetrics.cluster.election import Member
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import CUDA, HIP, ROCR, hides_nvidia_gpus
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded
from mlflow_sysmetrics.runtime.process_identity import is_gone

_NVML_SECONDS = 2.0  # starting it takes a tenth of a second per GPU without the persistence daemon


def visible_gpus(job: Job | None, host: Host | None = None) -> tuple[str, ...] | None:
    """Returns the UUIDs of the GPUs and slices that CUDA and HIP show to this process; None if unknown.

    NVML is started, and AMD's driver read, only where the processes of a job may see different ones.
    """
    host = host or Host()
    if job is None or not job.is_several or host.environ.keys().isdisjoint((CUDA, ROCR, HIP)):
        return None
    amd = _amd(host)
    nvidia = None if amd is None else _nvidia(host)
    # A program may have loaded NVML's bindings on a machine with AMD's GPUs only.
    return (*(nvidia or ()), *amd) if amd else nvidia


def _nvidia(host: Host) -> tuple[str, ...] | None:
    if hides_nvidia_gpus(host.environ) or not host.may_have_nvml():
        return ()
    if CUDA not in host.environ:
        return None
    with contextlib.suppress(CallTimeout, ThreadUnavailable):
        return bounded(lambda: _ask_nvml(host), _NVML_SECONDS, name="sysmetrics-gpus")
    return None


def _amd(host: Host) -> tuple[str, ...] | None:
    """Returns the UUIDs of AMD's GPUs; cards before Vega have none."""
    from mlflow_sysmetrics.collectors.drm.watched_gpus import amd_devices
    from mlflow_sysmetrics.collectors.presence import no_amd_gpu
    from mlflow_sysmetrics.errors import Unavailable
    from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd

    if no_amd_gpu(host):
        return ()
    try:
        uuids = [device.uuid for device in amd_devices(host)]
    except Unavailable:
        return None
    found = tuple(uuids[one.index] for one in select_amd(host.environ, "visible", uuids).chosen)
    return found if all(found) else None


def gpus_shown_by(visible: str, host: Host | None = None) -> tuple[str, ...]:
    """Returns the UUIDs of the GPUs that a value of `CUDA_VISIBLE_DEVICES` shows; none if unknown."""
    host = host or Host()
    if not host.may_have_nvml():
        return ()
    seen = replace(host, environ={**host.environ, CUDA: visible})
    with contextlib.suppress(CallTimeout, ThreadUnavailable):
        return bounded(lambda: _ask_nvml(seen), _NVML_SECONDS, name="sysmetrics-gpus") or ()
    return ()


def _ask_nvml(host: Host) -> tuple[str, ...] | None:
    from mlflow_sysmetrics.collectors.nvml.enumeration import listing
    from mlflow_sysmetrics.collectors.nvml.library import NvmlError, start
    from mlflow_sysmetrics.errors import Unavailable
    from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia

    try:
        found = listing(start(host))
    except (NvmlError, Unavailable):
        return None
    selection = select_nvidia(host.environ, "visible", found.gpus, same_model=found.same_model)
    uuids = {gpu.index: gpu.uuid for gpu in found.gpus}
    return tuple(
        uuid for one in selection.chosen if (uuid := one.slice.uuid if one.slice else uuids[one.index])
    )


def scope_of(own: Member, members: Sequence[Member], job: Job | None) -> tuple[list[int], list[str]]:
    """Returns the processes whose trees are the job's on this node, and the UUIDs of its GPUs.

    Args:
        own: this process.
        members: all that have joined; if none are known, this one is alone.
        job: the job.

    Returns:
        Process ids, and the GPUs that all of them see; no GPUs if those of this process's environment are
        right.
    """
    here = [member for member in members or [own] if not is_gone(member.process)]
    pids = sorted({pid for member in here for pid in member.pids})
    uuids = {uuid: None for member in here for uuid in member.gpus or ()}
    local_size = (None if job is None else job.likely_local_size) or len(here)
    are_held = any(member.are_held for member in here)
    need_union = are_held or gpus_need_union(set(own.gpus or ()), set(uuids), local_size)
    return pids, sorted(uuids) if need_union else []


def gpus_need_union(own: set[str], everybody: set[str], local_size: int) -> bool:
    """Returns whether GPUs are chosen and numbered by the host instead of by the leader's environment.

    They are if another process sees more of them, and if there are fewer than processes: then each process
    probably has its own, and the others have not joined yet.

    Args:
        own: UUIDs of those that the leader sees.
        everybody: UUIDs of those that all members see.
        local_size: number of processes of the job on this node.
    """
    return bool(everybody) and (everybody != own or len(own) < local_size)
