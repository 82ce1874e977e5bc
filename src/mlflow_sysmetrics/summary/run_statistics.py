"""Statistics of what one node did in a run: fed tick by tick, merged, and read as a `Summary`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory, gpu
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.summary.series_statistics import Statistics
from mlflow_sysmetrics.summary.summary import GpuSummary, Level, Summary, Surroundings

#: The GPUs of a node are compared over intervals of this length, as Composer's HealthChecker does.
COMPARED_SECONDS = 120.0
#: Points of utilization from the median of the node's GPUs that make an interval count, from the same source.
COMPARED_POINTS = 10.0
#: Utilization of the GPUs below which they may be waiting for the host.
LOW_PERCENTAGE = 50.0
#: Utilization up to which a GPU is idle.
IDLE_PERCENTAGE = 1.0
# The host limits the job above one of these: percent of the CPU time that it may use, of the periods of its
# quota, and of the time in which something waited for a disk. The first is SageMaker Debugger's.
_CPU_BUSY, _CPU_STOPPED, _IO_WAITING = 90.0, 5.0, 20.0
_SHARED_RATIO, _SHARED_MEGABYTES = 1.25, 1000.0  # more memory than the job's own: a context is 300 to 700 MB

_CPU = cpu_and_memory.CPU_UTILIZATION.name
_STOPPED = cpu_and_memory.CPU_THROTTLED.name
_MEMORY = cpu_and_memory.MEMORY_USAGE_PERCENTAGE.name
_KILLS = cpu_and_memory.MEMORY_OOM_KILLS.name
_IO = cpu_and_memory.IO_PRESSURE.name
_PROCESS_CPU = cpu_and_memory.PROCESS_CPU.name
_PROCESS_MEMORY = cpu_and_memory.PROCESS_RSS.name
_CPU_ENERGY = cpu_and_memory.CPU_ENERGY.name
_NODE_LEVELS = frozenset({_CPU, _STOPPED, _MEMORY, _PROCESS_CPU, _PROCESS_MEMORY})
_NODE_TOTALS = frozenset({_KILLS, _CPU_ENERGY})


def _ends(*metrics: object) -> frozenset[str]:
    """Returns what follows the ordinal in the names of some metrics of GPUs."""
    return frozenset(str(getattr(one, "name", "")).partition("{i}_")[2] for one in metrics)


(_USED,) = _ends(gpu.GPU_UTILIZATION)
(_HELD,) = _ends(gpu.GPU_MEMORY_USAGE)
(_FILLED,) = _ends(gpu.GPU_MEMORY_USAGE_PERCENTAGE)
(_OWN,) = _ends(gpu.GPU_PROCESS_MEMORY)
(_POWER,) = _ends(gpu.GPU_POWER_USAGE)
(_SLOWED,) = _ends(gpu.GPU_THROTTLED)
(_GPU_ENERGY,) = _ends(gpu.GPU_ENERGY)
_FAULTS = _ends(gpu.GPU_ECC_ERRORS, gpu.GPU_XID_ERRORS, gpu.GPU_REMAPPED_ROWS)
_GPU_LEVELS = frozenset({_USED, _HELD, _FILLED, _OWN, _POWER, _SLOWED})
_GPU_KEY = re.compile(r"gpu_(\d+)_(\w+)", re.ASCII)


def is_summarised(key: str) -> bool:
    """Returns whether a series, without "system/" and node, is part of a summary."""
    match = _GPU_KEY.fullmatch(key)
    if match is None:
        return key in _NODE_LEVELS or key in _NODE_TOTALS or key == _IO
    return match[2] in _GPU_LEVELS or match[2] in _FAULTS or match[2] == _GPU_ENERGY


class RunStatistics:
    """What one node did in one run. Bounded: some ten series, and eight of each GPU, of 2 kB each.

    It is fed by `add` or `add_ticks`; parts of a run are merged in order. Used by one thread at a time.

    Args:
        share: what part of the time of GPUs and processes, and of the energy, is this run's: 1/64 for one of
            64 runs that are active in one process.

    Attributes:
        seconds: time that was added.
        share: as above; for what has been added so far, and until the next change.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.seconds = 0.0
        self.share = share
        self._surplus: dict[str, float] = {}  # amounts of merged parts, less what they are at this share
        self._levels: dict[str, Statistics] = {}
        self._totals: dict[str, _Total] = {}
        self._compared: dict[str, Statistics] = {}  # 100 or 0 per interval, of each GPU
        self._limited = Statistics()  # 100 or 0: did the host limit the job while its GPUs waited
        self._interval: dict[str, Statistics] = {}
        self._interval_seconds = 0.0
        self._waited = self._waited_seconds = 0.0  # mean utilization of the GPUs since the last CPU reading
        self._used_keys: dict[str, str] = {}  # of the utilization of each GPU -> its ordinal
        self._ignored: set[str] = set()

    def add(self, values: Mapping[str, float], seconds: float) -> None:
        """Adds the values of a tick.

        Args:
            values: by key, without "system/" and node; others than those of a summary are ignored.
            seconds: how long they lasted.
        """
        if not seconds > 0:
            return
        self.seconds += seconds
        levels = self._levels
        for key, value in values.items():
            series = levels.get(key)
            if series is None and key not in self._ignored:
                series = self._begin(key)
            if series is not None:
                series.add(value, seconds)
            elif key in self._totals:
                self._totals[key].add(value)
        self._compare(values, seconds)

    def add_ticks(self, ticks: Iterable[tuple[Sequence[Sample], float]]) -> None:
        """Adds the samples of some ticks: levels of each, rates where they were read, with their own span.

        A total counts from its first reading, or from the last one of the part before.

        Args:
            ticks: of each tick its samples, and the seconds since the tick before.
        """
        plans: dict[int, list[tuple[int, str, Statistics | _Total]]] = {}
        for samples, seconds in ticks:
            if not seconds > 0:
                continue
            self.seconds += seconds
            plan = plans.get(len(samples))
            if plan is None or any(samples[place][0] != key for place, key, _ in plan):
                plan = plans[len(samples)] = self._plan(samples)
            for place, _, series in plan:
                _, _, value, span = samples[place]
                series.add(value, seconds if span is None else span)
            if self._used_keys:
                self._compare({samples[place][0]: samples[place][2] for place, *_ in plan}, seconds)

    def count_from(self, samples: Sequence[Sample]) -> None:
        """Has totals count from the readings of a tick that is not part of this."""
        for key, _, value, _ in samples:
            self._begin(key)
            if key in self._totals:
                self._totals[key].continue_from(value)

    def _plan(self, samples: Sequence[Sample]) -> list[tuple[int, str, Statistics | _Total]]:
        """Returns the places of the samples that count, with what takes them: most samples do not."""
        plan: list[tuple[int, str, Statistics | _Total]] = []
        for place, (key, _, value, _) in enumerate(samples):
            series = self._levels.get(key)
            if series is None and key not in self._ignored and key not in self._totals:
                series = self._begin(key)
                if key in self._totals:
                    self._totals[key].continue_from(value)
            taker = series if series is not None else self._totals.get(key)
            if taker is not None or key == _IO:
                plan.append((place, key, taker or _Total()))
        return plan

    def merge(self, other: RunStatistics) -> None:
        """Adds a later part of the same run."""
        self._close_interval()
        other._close_interval()
        for name, amount in other._amounts().items():
            extra = other._surplus.get(name, 0.0) + amount * (other.share - self.share)
            if extra:
                self._surplus[name] = self._surplus.get(name, 0.0) + extra
        self.seconds += other.seconds
        for mine, theirs in ((self._levels, other._levels), (self._compared, other._compared)):
            for key, series in theirs.items():
                mine.setdefault(key, Statistics()).merge(series)
        for key, total in other._totals.items():
            self._totals.setdefault(key, _Total()).grown += total.grown
        self._limited.merge(other._limited)

    def continued(self) -> RunStatistics:
        """Returns empty ones for what follows, in which counters count on."""
        following = RunStatistics(self.share)
        for key, total in self._totals.items():
            following._totals[key] = total.continued()
        return following

    def summary(self, node: str = "", surroundings: Surroundings | None = None) -> Summary:
        """Returns what was added so far.

        Args:
            node: id of the node; "" for a run without one.
            surroundings: what the tags of the run say.
        """
        self._close_interval()
        amounts = {
            name: amount * self.share + self._surplus.get(name, 0.0)
            for name, amount in self._amounts().items()
        }
        gpus = tuple(self._gpu(name, amounts) for name in self._gpu_names())
        return Summary(
            node=node,
            seconds=self.seconds,
            surroundings=surroundings or Surroundings(),
            cpu=self._level(_CPU),
            cpu_throttled_percentage=self._mean(_STOPPED),
            memory=self._level(_MEMORY),
            process_cpu=self._level(_PROCESS_CPU),
            process_memory=self._level(_PROCESS_MEMORY),
            oom_kills=self._grown(_KILLS) or 0.0,
            host_limited_percentage=self._limited.mean,
            cpu_watt_hours=amounts.get(_CPU_ENERGY),
            core_seconds=amounts.get(_PROCESS_CPU),
            gpus=gpus,
        )

    def _amounts(self) -> dict[str, float]:
        """Returns what runs of one process share: seconds and energy, by the name of the series."""
        found = {}
        process = self._levels.get(_PROCESS_CPU)
        if process is not None and process.mean is not None:
            found[_PROCESS_CPU] = process.mean / 100 * process.seconds
        if (grown := self._grown(_CPU_ENERGY)) is not None:
            found[_CPU_ENERGY] = grown
        for name in self._gpu_names():
            used = self._levels.get(f"gpu_{name}_{_USED}")
            idle = used.share_up_to(IDLE_PERCENTAGE) if used else None
            found[f"{name} seconds"] = max((series.seconds for series in self._of(name)), default=0.0)
            if used is not None and idle is not None:
                found[f"{name} used"] = used.seconds
                found[f"{name} idle"] = idle * used.seconds
            if (energy := self._energy(name)) is not None:
                found[f"{name} energy"] = energy
        return found

    def _begin(self, key: str) -> Statistics | None:
        match = _GPU_KEY.fullmatch(key)
        name = key if match is None else match[2]
        if name in _NODE_TOTALS or name in _FAULTS or name == _GPU_ENERGY:
            self._totals.setdefault(key, _Total())
        elif (name in _GPU_LEVELS) if match else (key in _NODE_LEVELS):
            if match and name == _USED:
                self._used_keys[key] = match[1]
            return self._levels.setdefault(key, Statistics())
        self._ignored.add(key)
        return None

    def _compare(self, values: Mapping[str, float], seconds: float) -> None:
        """Relates the GPUs to each other and to the host."""
        used = {name: values[key] for key, name in self._used_keys.items() if key in values}
        if not used:
            return
        self._waited += sum(used.values()) / len(used) * seconds
        self._waited_seconds += seconds
        if _CPU in values:  # the host's rates cover the time since they were read last
            if self._waited < LOW_PERCENTAGE * self._waited_seconds:
                limited = (
                    values[_CPU] > _CPU_BUSY
                    or values.get(_STOPPED, 0.0) > _CPU_STOPPED
                    or values.get(_IO, 0.0) > _IO_WAITING
                )
                self._limited.add(100.0 if limited else 0.0, self._waited_seconds)
            self._waited = self._waited_seconds = 0.0
        if len(used) > 1:
            for name, value in used.items():
                self._interval.setdefault(name, Statistics()).add(value, seconds)
            self._interval_seconds += seconds
            if self._interval_seconds >= COMPARED_SECONDS:
                self._close_interval()

    def _close_interval(self) -> None:
        if self._interval_seconds >= COMPARED_SECONDS / 2:
            means = {name: series.mean or 0.0 for name, series in self._interval.items()}
            middle = median(means.values())
            for name, mean in means.items():
                is_off = abs(mean - middle) > COMPARED_POINTS
                self._compared.setdefault(name, Statistics()).add(100.0 * is_off, self._interval_seconds)
        self._interval = {}
        self._interval_seconds = 0.0

    def _gpu_names(self) -> list[str]:
        matches = map(_GPU_KEY.fullmatch, (*self._levels, *self._totals))
        return sorted({match[1] for match in matches if match}, key=int)

    def _gpu(self, name: str, amounts: Mapping[str, float]) -> GpuSummary:
        held, own = (self._levels.get(f"gpu_{name}_{end}") for end in (_HELD, _OWN))
        used, idle = amounts.get(f"{name} used"), amounts.get(f"{name} idle")
        compared = self._compared.get(name)
        return GpuSummary(
            name=name,
            seconds=amounts.get(f"{name} seconds", 0.0),
            utilization=self._level(f"gpu_{name}_{_USED}"),
            idle_percentage=None if idle is None or not used else 100 * idle / used,
            memory=self._level(f"gpu_{name}_{_FILLED}"),
            holds_memory=bool(own and own.max > 0),
            shared=_is_shared(held, own),
            power=self._level(f"gpu_{name}_{_POWER}"),
            throttled_percentage=self._mean(f"gpu_{name}_{_SLOWED}"),
            off_median_percentage=compared.mean if compared else None,
            faults={end: grown for end in sorted(_FAULTS) if (grown := self._grown(f"gpu_{name}_{end}"))},
            watt_hours=amounts.get(f"{name} energy"),
        )

    def _of(self, name: str) -> Iterable[Statistics]:
        return (series for end in _GPU_LEVELS if (series := self._levels.get(f"gpu_{name}_{end}")))

    def _energy(self, name: str) -> float | None:
        """Returns the energy of a GPU in watt-hours: of its counter, else of its power over time."""
        counted = self._grown(f"gpu_{name}_{_GPU_ENERGY}")
        power = self._levels.get(f"gpu_{name}_{_POWER}")
        if counted is not None or power is None or power.mean is None:
            return counted
        return power.mean * power.seconds / 3600

    def _level(self, key: str) -> Level | None:
        series = self._levels.get(key)
        return Level.of(series) if series else None

    def _mean(self, key: str) -> float | None:
        series = self._levels.get(key)
        return series.mean if series else None

    def _grown(self, key: str) -> float | None:
        total = self._totals.get(key)
        return total.grown if total else None


class _Total:
    """The growth of a counter that begins at 0 with each attach of the run."""

    __slots__ = ("_last", "grown")

    def __init__(self) -> None:
        self.grown = 0.0
        self._last = 0.0

    def continued(self) -> _Total:
        """Returns one whose growth begins with the next reading."""
        following = _Total()
        following._last = self._last
        return following

    def continue_from(self, value: float) -> None:
        """Counts from a reading on, which is not growth itself."""
        self._last = value

    def add(self, value: float, seconds: float = 0.0) -> None:
        """Adds a reading; a lower one than before is of a new attach."""
        del seconds  # as for levels
        self.grown += value - self._last if value >= self._last else value
        self._last = value


def _is_shared(held: Statistics | None, own: Statistics | None) -> bool:
    """Returns whether others hold much more of a GPU's memory than the job does."""
    if held is None or own is None or held.mean is None or own.mean is None:
        return False
    return held.mean > own.mean * _SHARED_RATIO + _SHARED_MEGABYTES
