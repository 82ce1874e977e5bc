"""What the rules look at: one function for each, pure, over the summary of one node.

Each returns the numbers of the rule's wording if the rule applies, an empty mapping if it does not, and None
if an input is absent or may mislead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from mlflow_sysmetrics.summary.summary import GpuSummary, Level, Summary

_WORDS = {
    "ecc_errors": "memory errors (ECC)",
    "xid_errors": "critical errors (XID)",
    "remapped_rows": "replaced rows of memory",
}

#: What a rule found, for its wording; None if it cannot say.
Numbers = Mapping[str, object]
NOTHING: Numbers = {}


def own_gpus(summary: Summary) -> list[tuple[GpuSummary, Level]]:
    """Returns the GPUs whose utilization is known and the job's own.

    Inside MIG a driver may report 0 all the time, which says nothing.
    """
    return [
        (gpu, gpu.utilization)
        for gpu in summary.gpus
        if gpu.utilization is not None
        if not gpu.shared and not (summary.surroundings.mig and gpu.utilization.max == 0)
    ]


def _listed(names: Sequence[str]) -> str:
    return ("GPU " if len(names) == 1 else "GPUs ") + ", ".join(names)


def gpu_unused(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for GPUs that nothing has used; one whose memory is in use has an owner, known or not."""
    judged = [(gpu, used) for gpu, used in own_gpus(summary) if gpu.memory is not None]
    if not judged:
        return None
    unused = [
        (gpu, used)
        for gpu, used in judged
        if used.mean < limits["mean"] and not gpu.holds_memory
        if gpu.memory is not None and gpu.memory.max < limits["memory"]
    ]
    if not unused:
        return NOTHING
    return {
        "gpus": _listed([gpu.name for gpu, _ in unused]),
        "found": max(used.mean for _, used in unused),
        "of": len(summary.gpus),
        "count": len(unused),
    }


def input_bound(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for GPUs that wait while CPU, quota or disk limit the job."""
    judged = own_gpus(summary)
    if not judged or summary.host_limited_percentage is None:
        return NOTHING if judged and all(used.p50 >= limits["p50"] for _, used in judged) else None
    low = min(used.p50 for _, used in judged)
    if low >= limits["p50"] or summary.host_limited_percentage <= limits["share"]:
        return NOTHING
    return {"found": low, "limited": summary.host_limited_percentage}


def cpu_throttled(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for a quota that stops the job."""
    found = summary.cpu_throttled_percentage
    if found is None:
        return None
    return {"found": found} if found > limits["periods"] else NOTHING


def gpu_throttled(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for a GPU that power or heat slows down."""
    known = [
        (gpu.throttled_percentage, gpu.name)
        for gpu in summary.gpus
        if gpu.throttled_percentage is not None and not gpu.shared
    ]
    if not known:
        return None
    found, name = max(known)
    return {"found": found, "gpu": name} if found > limits["time"] else NOTHING


def straggler(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for a GPU that is used more or less than the others for most of the time."""
    judged = [(gpu, used) for gpu, used in own_gpus(summary) if gpu.off_median_percentage is not None]
    if len(judged) < 2:  # noqa: PLR2004 - one alone lags behind nothing
        return None
    middle = median(used.mean for _, used in judged)
    off = [(abs(used.mean - middle), gpu, used) for gpu, used in judged]
    distance, gpu, used = max(off, key=lambda one: (one[0], -one[2].mean))
    share = gpu.off_median_percentage or 0.0
    if distance <= limits["points"] or share <= limits["share"]:
        return NOTHING
    return {"what": f"GPU {gpu.name}", "found": used.mean, "middle": middle, "distance": distance}


def gpu_starved(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for a GPU that is busy and idle in turns."""
    judged = own_gpus(summary)
    if not judged:
        return None
    starved = [(gpu, used) for gpu, used in judged if used.p95 >= limits["p95"] and used.p5 < limits["p5"]]
    if not starved:
        return NOTHING
    gpu, used = min(starved, key=lambda one: one[1].mean)
    return {"gpu": gpu.name, "low": used.p5, "high": used.p95, "found": used.mean}


def near_out_of_memory(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for memory that was nearly full, and for processes that were killed for it."""
    if summary.oom_kills > 0:
        peak = f"{summary.memory.max:.0f} %" if summary.memory else "an unknown share"
        return {"peak": peak, "killed": f", and the kernel killed {summary.oom_kills:.0f} of its processes"}
    if summary.memory is None:
        return None
    if summary.memory.max <= limits["max"]:
        return NOTHING
    return {"peak": f"{summary.memory.max:.1f} %", "killed": ""}


def over_requested(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for a job that was given much more than it used."""
    around = summary.surroundings
    if not around.allocated or summary.cpu is None or summary.memory is None or around.cores is None:
        return None
    is_low = summary.cpu.mean < limits["cpu"] and summary.memory.max < limits["memory"]
    gpus = max(len(summary.gpus), around.gpus or 0)
    # A job for GPUs uses few of its cores by nature; what it must not have is too many of them per GPU.
    if not is_low or (gpus and around.cores / gpus <= limits["cores_per_gpu"]):
        return NOTHING
    needed = max(round(around.cores * summary.cpu.p95 / 100), 1)
    return {"found": summary.cpu.mean, "peak": summary.memory.max, "cores": around.cores, "needed": needed}


def faults(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Looks for errors that a GPU has reported."""
    if not summary.gpus:
        return None
    found = [
        f"GPU {gpu.name} reported {count:.0f} {_WORDS.get(name, name)}"
        for gpu in summary.gpus
        for name, count in gpu.faults.items()
        if count > limits["faults"]
    ]
    return {"found": "; ".join(found)} if found else NOTHING


def healthy(summary: Summary, limits: Mapping[str, float]) -> Numbers | None:
    """Needs every input; a GPU that is used little without a known cause is not healthy, nor a finding."""
    if summary.cpu is None or summary.memory is None:
        return None
    expected = max(len(summary.gpus), summary.surroundings.gpus or 0)
    judged = own_gpus(summary)
    if len(judged) < expected or any(gpu.throttled_percentage is None for gpu, _ in judged):
        return None
    if not judged:
        what = f"the CPUs of the job were used {summary.cpu.mean:.0f} %"
        return {"found": what} if summary.cpu.mean >= limits["cpu"] else NOTHING
    low = min(used.p50 for _, used in judged)
    what = (
        f"the GPU that was used least was above {low:.0f} % for half of the time, which says that kernels "
        "ran, not that they filled it"
    )
    return {"found": what} if low >= limits["p50"] else NOTHING
