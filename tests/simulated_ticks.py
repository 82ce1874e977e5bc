"""What simulated machines report at each second: one kind of run per verdict, and those that users complain of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlflow_sysmetrics.summary.summary import Surroundings

Tick = Callable[[int], Mapping[str, float]]
GPU_NODE = Surroundings(cores=16, gpus=1)
CPU = "cpu_utilization_percentage"
MEMORY = "system_memory_usage_percentage"


def gpu(
    name: int = 0, used: float = 92.0, *, filled: float = 60.0, own: float | None = 50_000, **more: float
) -> dict[str, float]:
    """Returns the readings of a GPU of 100 GB at one tick."""
    found = {
        f"gpu_{name}_utilization_percentage": used,
        f"gpu_{name}_memory_usage_percentage": filled,
        f"gpu_{name}_memory_usage_megabytes": filled * 1000,
        f"gpu_{name}_throttled_percentage": 0.0,
        **{f"gpu_{name}_{key}": value for key, value in more.items()},
    }
    return found if own is None else {**found, f"gpu_{name}_process_memory_megabytes": own}


def host(cpu: float = 40.0, memory: float = 50.0, **more: float) -> dict[str, float]:
    return {CPU: cpu, MEMORY: memory, "process_cpu_percentage": cpu * 16, **more}


def steady(second: int) -> dict[str, float]:
    return {**host(), **gpu(used=90 + second % 7)}


KINDS: dict[str, tuple[Tick, Surroundings]] = {
    "healthy": (steady, GPU_NODE),
    # one slow worker that sleeps: the GPU is busy and idle in turns, and nothing else is
    "gpu-starved": (lambda second: {**host(8), **gpu(used=95 if second % 40 < 20 else 0)}, GPU_NODE),
    "input-bound": (lambda second: {**host(97), **gpu(used=95 if second % 50 < 15 else 5)}, GPU_NODE),
    "cpu-throttled": (
        lambda second: {**host(99, cpu_throttled_percentage=80.0), **gpu(used=95 if second % 50 < 15 else 5)},
        GPU_NODE,
    ),
    "near-out-of-memory": (lambda second: {**steady(second), MEMORY: min(50 + second / 60, 97.5)}, GPU_NODE),
    "gpu-unused": (lambda _: {**host(60), **gpu(used=0, filled=0.6, own=None)}, GPU_NODE),
    "straggler": (
        lambda second: {
            **host(),
            **{k: v for i in range(4) for k, v in gpu(i, used=91 if i != 2 else 70 + second % 3).items()},
        },
        Surroundings(cores=64, gpus=4),
    ),
    "gpu-throttled": (lambda second: {**steady(second), "gpu_0_throttled_percentage": 30.0}, GPU_NODE),
    "faults": (
        lambda second: {**steady(second), "gpu_0_xid_errors": 1.0 if second > 900 else 0.0},
        GPU_NODE,
    ),
    "over-requested": (
        lambda _: {CPU: 12.0, MEMORY: 9.0},
        Surroundings(cores=32, allocated=True, gpus=0),
    ),
}


def notebook(second: int) -> dict[str, float]:
    """Cells of a minute, then half an hour of thinking."""
    busy = second % 1800 < 60
    return {**host(3, 10), **gpu(used=90 if busy else 0)}


def start_up(minutes: float, then: Tick = steady) -> Tick:
    """A data set that is unpacked before the GPU is first used."""

    def tick(second: int) -> dict[str, float]:
        if second < minutes * 60:
            return {**host(30), **gpu(used=0, filled=0.6, own=None)}
        return dict(then(second))

    return tick


SILENT: dict[str, tuple[Tick, float, Surroundings]] = {
    "full memory at low utilization": (
        lambda second: {**host(), **gpu(used=15 + second % 20, filled=97, own=97_000)},
        120,
        GPU_NODE,
    ),
    "full memory at no utilization: a served model that waits": (
        lambda _: {**host(2), **gpu(used=0, filled=97, own=97_000)},
        120,
        GPU_NODE,
    ),
    "full memory of an owner that is unknown: in a container": (
        lambda _: {**host(2), **gpu(used=0, filled=97, own=None)},
        120,
        GPU_NODE,
    ),
    "TensorFlow takes all memory": (
        lambda second: {**host(), **gpu(used=40 + second % 20, filled=99, own=99_000)},
        120,
        GPU_NODE,
    ),
    "MIG without utilization": (
        lambda _: {**host(), "gpu_0_memory_usage_percentage": 3.0, "gpu_0_memory_usage_megabytes": 300.0},
        120,
        Surroundings(cores=16, gpus=1, mig=True),
    ),
    "MIG reports 0 all the time": (
        lambda _: {**host(), **gpu(used=0, filled=3, own=None)},
        120,
        Surroundings(cores=16, gpus=1, mig=True),
    ),
    "MIG reports 0, and memory in use": (
        lambda _: {**host(), **gpu(used=0, filled=50, own=50_000)},
        120,
        Surroundings(cores=16, gpus=1, mig=True),
    ),
    "a start-up of four minutes": (start_up(4), 4.5, GPU_NODE),
    "a run of four minutes that does nothing": (
        lambda _: {**host(), **gpu(used=0, filled=0.6, own=None)},
        4.5,
        GPU_NODE,
    ),
    "a notebook": (notebook, 300, Surroundings(cores=16, gpus=1, interactive=True, allocated=True)),
    "a notebook that has not used its GPU yet": (
        lambda _: {**host(3, 10), **gpu(used=0, filled=0.6, own=None)},
        400,
        Surroundings(cores=64, gpus=1, interactive=True, allocated=True),
    ),
    "another tenant uses the GPU": (
        lambda second: {**host(), **gpu(used=95 if second % 40 < 20 else 0, filled=80, own=5_000)},
        120,
        GPU_NODE,
    ),
    "another tenant slows a GPU down": (
        lambda _: {**host(), **gpu(used=30, filled=80, own=5_000, throttled_percentage=40.0)},
        120,
        GPU_NODE,
    ),
    "another tenant on one of two GPUs": (
        lambda _: {**host(), **gpu(0, 92), **gpu(1, 40, filled=90, own=10_000)},
        120,
        Surroundings(cores=32, gpus=2),
    ),
    "another tenant on a GPU that the job has not used yet": (
        lambda _: {**host(), **gpu(used=0, filled=30, own=None)},
        120,
        GPU_NODE,
    ),
    "an evaluation on one GPU now and then": (
        lambda second: {**host(), **gpu(0, 92), **gpu(1, 92 if second % 1200 > 240 else 20)},
        120,
        Surroundings(cores=32, gpus=2),
    ),
    "short bursts against the quota": (
        lambda second: {**host(cpu_throttled_percentage=4.0), **gpu(used=45)},
        120,
        GPU_NODE,
    ),
    "a workstation of one's own that is idle": (
        lambda _: {CPU: 3.0, MEMORY: 10.0},
        120,
        Surroundings(cores=32),
    ),
    "few cores in use beside a GPU, as on every node of a cluster": (
        lambda _: {**host(10, 20), **gpu(used=45)},
        120,
        Surroundings(cores=16, gpus=1, allocated=True),
    ),
    "nothing is measured": (lambda _: {}, 120, GPU_NODE),
    "the utilization is missing": (lambda _: host(), 120, GPU_NODE),
}


FINE = {"an evaluation on one GPU now and then"}  # the others are used too little, or not measured enough
