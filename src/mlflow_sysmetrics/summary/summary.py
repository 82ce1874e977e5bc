"""The summary of one node in one run, and its figures as metrics of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mlflow_sysmetrics.summary.series_statistics import Statistics

#: What the names of the metrics begin with; the id of the node follows if there is one.
PREFIX = "system/summary/"
#: The tag with the verdict of a run, in one line.
VERDICT_TAG = "sys.verdict"
#: The tag with what was found last while the run lasted: time, verdict and text.
ALERT_TAG = "sys.alert"

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Level:
    """How high a series was, in its unit; the quantiles are over time and within 2 % of the exact ones."""

    mean: float
    max: float
    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, series: Statistics) -> Level | None:
        """Returns the level of a series; None without values."""
        if series.mean is None:
            return None
        p5, p50, p95 = (series.quantile(share) or 0.0 for share in (0.05, 0.5, 0.95))
        return cls(series.mean, series.max, p5, p50, p95)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSummary:
    """What one GPU did in a run. None is what was not measured.

    Attributes:
        name: its ordinal.
        seconds: time in which it was measured; the run's share of it if several runs are active in one
            process.
        utilization: percent.
        idle_percentage: share of that time at a utilization of at most 1 %.
        memory: percent of its memory that was in use, by all processes.
        holds_memory: whether the job is known to have held memory on it.
        shared: whether others held much more of its memory than the job.
        power: watts.
        throttled_percentage: share of time in which power or heat slowed it down.
        off_median_percentage: share of the intervals of 120 s in which its utilization was more than 10
            points from the median of the node's GPUs; None for a single GPU.
        faults: number of each kind of fault that happened.
        watt_hours: energy, shared like the seconds.
    """

    name: str
    seconds: float
    utilization: Level | None = None
    idle_percentage: float | None = None
    memory: Level | None = None
    holds_memory: bool = False
    shared: bool = False
    power: Level | None = None
    throttled_percentage: float | None = None
    off_median_percentage: float | None = None
    faults: Mapping[str, float] = field(default_factory=dict)
    watt_hours: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a run's tags say about how it was run. None is what they do not say.

    Attributes:
        interactive: whether it ran in a notebook.
        allocated: whether a scheduler or a limit gave it a part of a machine.
        cores: CPU cores that it may use.
        gpus: number of its GPUs.
        mig: whether they are parts of GPUs (MIG).
    """

    interactive: bool = False
    allocated: bool = False
    cores: float | None = None
    gpus: int | None = None
    mig: bool = False

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Surroundings:
        """Returns what the tags of a run say."""
        cores, allowed = _number(tags.get("sys.cpu_cores")), _number(tags.get("sys.cpu_cores_effective"))
        source = tags.get("mlflow.source.name", "")
        gpus = _number(tags.get("sys.gpu_count"))
        if gpus is None and tags.get("sys.gpu", "None") != "None":
            gpus = 1
        return cls(
            interactive=tags.get("mlflow.source.type") == "NOTEBOOK"
            or any(word in source for word in ("ipykernel", "colab_kernel")),
            allocated="sys.scheduler" in tags
            or "sys.memory_limit_gb" in tags
            or (cores is not None and allowed is not None and allowed < cores),
            cores=cores if allowed is None else allowed,
            gpus=None if gpus is None else int(gpus),
            mig="MIG" in tags.get("sys.gpu", "") or "MIG-" in tags.get("sys.gpu_uuid", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one node did in one run. None is what was not measured.

    Attributes:
        node: id of the node; "" for a run without one.
        seconds: time that was measured.
        surroundings: how the job was run.
        cpu: percent of the CPU time that the job may use.
        cpu_throttled_percentage: share of the periods in which its quota stopped it.
        memory: percent of the host's memory, or of the limit.
        process_cpu: percent of one core, of the job's processes.
        process_memory: resident megabytes of the job's processes.
        oom_kills: processes that the out-of-memory killer ended.
        host_limited_percentage: of the time in which the GPUs were used less than half, the share in which
            CPU, quota or disk limited the job.
        cpu_watt_hours: energy of the host's CPUs; the run's share of it, as for GPUs.
        core_seconds: CPU time of the job's processes, shared likewise.
        gpus: its GPUs.
    """

    node: str = ""
    seconds: float = 0.0
    surroundings: Surroundings = field(default_factory=Surroundings)
    cpu: Level | None = None
    cpu_throttled_percentage: float | None = None
    memory: Level | None = None
    process_cpu: Level | None = None
    process_memory: Level | None = None
    oom_kills: float = 0.0
    host_limited_percentage: float | None = None
    cpu_watt_hours: float | None = None
    core_seconds: float | None = None
    gpus: tuple[GpuSummary, ...] = ()

    @property
    def gpu_hours(self) -> float | None:
        """Hours of all GPUs; None without one."""
        return sum(gpu.seconds for gpu in self.gpus) / _HOUR if self.gpus else None

    @property
    def watt_hours(self) -> float | None:
        """Measured energy of CPUs and GPUs."""
        return _total([self.cpu_watt_hours, *(gpu.watt_hours for gpu in self.gpus)])

    @property
    def unmeasured_energy(self) -> tuple[str, ...]:
        """What used energy that the machine does not report."""
        gpus = [f"GPU {gpu.name}" for gpu in self.gpus if gpu.watt_hours is None]
        return (*(["CPU"] if self.cpu_watt_hours is None else []), *gpus)

    def figures(self) -> dict[str, float]:
        """Returns what is known of `FIGURES`, by name."""
        found = ((figure.name, figure.of(self)) for figure in FIGURES)
        return {name: value for name, value in found if value is not None}

    def metrics(self) -> dict[str, float]:
        """Returns the figures as metrics of the run."""
        where = f"{PREFIX}{self.node}/" if self.node else PREFIX
        return {f"{where}{name}": value for name, value in self.figures().items()}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a summary, which a run has as a metric.

    Attributes:
        name: with quantity and unit.
        of: returns it; None if it was not measured.
        over_nodes: how those of several nodes become one: "sum", "max", or the name of the figure by which
            their mean is weighted.
        meaning: what it is, in a clause.
    """

    name: str
    of: Callable[[Summary], float | None]
    over_nodes: str
    meaning: str


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _over_gpus(summary: Summary, value: Callable[[GpuSummary], float | None]) -> float | None:
    """Returns the mean over the GPUs that have a value, weighted with their time."""
    known = [(one, gpu.seconds) for gpu in summary.gpus if (one := value(gpu)) is not None and gpu.seconds]
    weight = sum(seconds for _, seconds in known)
    return sum(one * seconds for one, seconds in known) / weight if weight else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _mean(level: Level | None) -> float | None:
    return None if level is None else level.mean


def _p95(level: Level | None) -> float | None:
    return None if level is None else level.p95


def _max(level: Level | None) -> float | None:
    return None if level is None else level.max


def _core_hours(summary: Summary) -> float | None:
    return None if summary.core_seconds is None else summary.core_seconds / _HOUR


FIGURES = (
    Figure("measured_hours", lambda one: one.seconds / _HOUR, "max", "time in which the node was measured"),
    Figure("gpu_hours", lambda one: one.gpu_hours, "sum", "hours of all GPUs that were measured"),
    Figure(
        "gpu_utilization_mean_percentage",
        lambda one: _over_gpus(one, lambda gpu: _mean(gpu.utilization)),
        "gpu_hours",
        "mean utilization of the GPUs",
    ),
    Figure(
        "gpu_utilization_p95_percentage",
        lambda one: _most(_p95(gpu.utilization) for gpu in one.gpus),
        "max",
        "utilization that the busiest GPU did not exceed for 95 % of the time",
    ),
    Figure(
        "gpu_idle_percentage",
        lambda one: _over_gpus(one, lambda gpu: gpu.idle_percentage),
        "gpu_hours",
        "share of the GPU-hours at a utilization of at most 1 %",
    ),
    Figure(
        "gpu_memory_max_percentage",
        lambda one: _most(_max(gpu.memory) for gpu in one.gpus),
        "max",
        "highest share of a GPU's memory in use, by all processes",
    ),
    Figure(
        "gpu_power_mean_watts",
        lambda one: _over_gpus(one, lambda gpu: _mean(gpu.power)),
        "gpu_hours",
        "mean power of one GPU",
    ),
    Figure(
        "energy_watt_hours", lambda one: one.watt_hours, "sum", "energy of GPUs and CPUs that was measured"
    ),
    Figure("cpu_core_hours", _core_hours, "sum", "CPU time of the job's processes"),
    Figure(
        "cpu_utilization_mean_percentage",
        lambda one: _mean(one.cpu),
        "measured_hours",
        "mean share of the CPU time that the job may use",
    ),
    Figure(
        "cpu_utilization_p95_percentage",
        lambda one: _p95(one.cpu),
        "max",
        "the share that was not exceeded for 95 % of the time",
    ),
    Figure(
        "memory_max_percentage",
        lambda one: _max(one.memory),
        "max",
        "highest share of the memory limit, or of the host's memory, in use",
    ),
    Figure(
        "process_memory_max_megabytes",
        lambda one: _max(one.process_memory),
        "max",
        "highest resident memory of the job's processes",
    ),
)


def figures_of_nodes(nodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the figures of a run on several nodes."""
    nodes = list(nodes)
    found = {}
    for figure in FIGURES:
        known = [node for node in nodes if figure.name in node]
        values = [node[figure.name] for node in known]
        if not values:
            continue
        if figure.over_nodes == "sum":
            found[figure.name] = sum(values)
        elif figure.over_nodes == "max":
            found[figure.name] = max(values)
        else:
            weights = [node.get(figure.over_nodes, 0.0) for node in known]
            total = sum(weights)
            weighted = sum(value * weight for value, weight in zip(values, weights, strict=True))
            found[figure.name] = weighted / total if total else sum(values) / len(values)
    return found


def figures_of_parts(*parts: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures of a node whose run was resumed, from those of its parts."""
    found = figures_of_nodes(parts)
    hours = [part["measured_hours"] for part in parts if "measured_hours" in part]
    return found | {"measured_hours": sum(hours)} if hours else found


def figures_of_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures that a run has as metrics, of all its nodes; empty if it has none."""
    nodes: dict[str, dict[str, float]] = {}
    known = {figure.name for figure in FIGURES}
    for key, value in metrics.items():
        if key.startswith(PREFIX) and math.isfinite(value):
            node, _, name = key.removeprefix(PREFIX).rpartition("/")
            if name in known:
                nodes.setdefault(node, {})[name] = value
    return figures_of_nodes(nodes.values())


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
