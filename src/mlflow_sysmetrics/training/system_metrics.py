"""SystemMetricsLogger: hardware metrics beside a training's own, with its steps as axis."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from types import TracebackType

from mlflow_sysmetrics.daemon import Point, PointWriter, open_writer, watch
from mlflow_sysmetrics.daemon.arguments import check_run_id, check_tracking_uri
from mlflow_sysmetrics.exports.watch import Watch
from mlflow_sysmetrics.mlflow_api.active_runs import active_run_id
from mlflow_sysmetrics.mlflow_api.metric_names import refusal
from mlflow_sysmetrics.training.detached import DetachedWatch
from mlflow_sysmetrics.training.values import as_step

_PER_GB = 1e-3  # the sampler reads megabytes of 1e6 bytes; 1 GB is 1e9 bytes
# Name, the sampler's name, and the factor from its unit to ours.
_CPU = (
    ("cpu_percent", "cpu_utilization_percentage", 1.0),
    ("memory_used_gb", "system_memory_usage_megabytes", _PER_GB),
    ("memory_percent", "system_memory_usage_percentage", 1.0),
)
_GPU = (
    ("gpu_utilization_percent", "gpu_{i}_utilization_percentage", 1.0),
    ("gpu_memory_used_gb", "gpu_{i}_memory_usage_megabytes", _PER_GB),
    ("gpu_memory_allocated_gb", "gpu_{i}_torch_allocated_megabytes", _PER_GB),
    ("gpu_memory_reserved_gb", "gpu_{i}_torch_reserved_megabytes", _PER_GB),
    ("gpu_temperature_celsius", "gpu_{i}_temperature_celsius", 1.0),
    ("gpu_power_watts", "gpu_{i}_power_usage_watts", 1.0),
)
_DISK = (
    ("disk_read_mb_per_s", "disk_read_megabytes_per_second", 1.0),
    ("disk_write_mb_per_s", "disk_write_megabytes_per_second", 1.0),
)
_NETWORK = (
    ("network_receive_mb_per_s", "network_receive_megabytes_per_second", 1.0),
    ("network_transmit_mb_per_s", "network_transmit_megabytes_per_second", 1.0),
)
_LONGEST_NAME = max((name for group in (_CPU, _GPU, _DISK, _NETWORK) for name, _, _ in group), key=len)

_FIRST_READINGS_SECONDS = 1.0  # rates need two readings, which take a quarter of that
_MAX_RUNS = 16  # with an open writer; the least recently used one is closed


class SystemMetricsLogger:
    """Logs hardware metrics at the steps of a training.

    It shows the last reading of this process's sampling thread, which is at most a second old, or a sampling
    interval if that is longer. So a call takes some microseconds and never waits. Metrics that this machine
    does not have are absent.

    Units: gigabytes are 1e9 bytes, megabytes 1e6 bytes. Percentages are 0 to 100; in a container, 100 is its
    quota.

    Use it as a context manager, or call `close`. Without either, sampling for it stops a minute after the
    last call. A copy made by pickle or `copy.deepcopy` logs nothing, with one warning.

    Args:
        log_cpu: logs ``cpu_percent``, ``memory_used_gb``, ``memory_percent``.
        log_gpu: logs ``gpu_utilization_percent``, ``gpu_memory_used_gb``, ``gpu_temperature_celsius``,
            ``gpu_power_watts``, and from torch's allocator ``gpu_memory_allocated_gb`` and
            ``gpu_memory_reserved_gb``.
        log_disk: logs ``disk_read_mb_per_s``, ``disk_write_mb_per_s``.
        log_network: logs ``network_receive_mb_per_s``, ``network_transmit_mb_per_s``.
        gpu_device: index of the GPU among the visible ones, as CUDA numbers them.
        run_id: the run to log to; by default the run that is active in the calling thread.
        tracking_uri: the run's tracking server; the current one by default.

    Raises:
        TypeError: `run_id` or `tracking_uri` is of a wrong type.
        ValueError: `gpu_device` is not an integer >= 0, or `run_id` or `tracking_uri` names nothing.
    """

    def __init__(
        self,
        log_cpu: bool = True,
        log_gpu: bool = True,
        log_disk: bool = False,
        log_network: bool = False,
        gpu_device: int = 0,
        *,
        run_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        if isinstance(gpu_device, bool) or not isinstance(gpu_device, int) or gpu_device < 0:
            raise ValueError(f"gpu_device must be an integer >= 0, got {gpu_device!r}")
        groups = ((log_cpu, _CPU), (log_gpu, _GPU), (log_disk, _DISK), (log_network, _NETWORK))
        self._metrics = tuple(
            (name, key.format(i=gpu_device), factor)
            for wanted, group in groups
            for name, key, factor in group
            if wanted
        )
        self._run_id = None if run_id is None else check_run_id(run_id)
        self._writers = _Writers(check_tracking_uri(tracking_uri))
        started = watch()
        started.wait(readings=2, timeout=_FIRST_READINGS_SECONDS)
        self._watch: Watch | DetachedWatch = started

    def __getstate__(self) -> dict[str, object]:
        """Leaves out what belongs to this process: a copy logs nothing."""
        return {"_metrics": self._metrics, "_run_id": self._run_id}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._watch = DetachedWatch("SystemMetricsLogger")
        self._writers = _Writers(None)

    def read(self) -> dict[str, float]:
        """Returns the last reading without logging it."""
        reading = self._watch.read()
        return {name: reading[key] * factor for name, key, factor in self._metrics if key in reading}

    def log_metrics(self, step: int | None = None, prefix: str = "system") -> dict[str, float]:
        """Logs the last reading to the run, if there is one.

        Args:
            step: step of the training; by default the whole seconds since the run started.
            prefix: the names are logged as ``<prefix>/<name>``.

        Returns:
            Values by name, without prefix, even if there is no run to log to.

        Raises:
            ValueError: `step` is not an integer >= 0, or MLflow refuses names with this `prefix`.
        """
        at_step = None if step is None else as_step("step", step)
        if not isinstance(prefix, str):
            raise ValueError(f"prefix must be a string, got {prefix!r}")
        reason = refusal(f"{prefix}/{_LONGEST_NAME}")
        if reason is not None:
            raise ValueError(f"prefix must be the start of a metric name, got {prefix!r}: {reason}")
        values = self.read()
        run_id = self._run_id or active_run_id()
        if run_id is not None and values:
            now = time.time_ns() // 1_000_000
            points = [Point(f"{prefix}/{name}", value, now, at_step) for name, value in values.items()]
            self._writers.of(run_id).write(points)
        return values

    def close(self, timeout: float | None = None) -> bool:
        """Stops reading and waits for delivery.

        Args:
            timeout: see `MetricRecorder.close`.

        Returns:
            Whether the server has everything.
        """
        self._watch.close()
        return self._writers.close(timeout)

    def __enter__(self) -> SystemMetricsLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Writers:
    """One writer per run that is logged to: usually a single run, in a study one per trial.

    Args:
        tracking_uri: the server of all runs; None uses the current one when a run is first logged to.
    """

    def __init__(self, tracking_uri: str | None) -> None:
        self._tracking_uri = tracking_uri
        self._lock = threading.RLock()  # reentrant: a signal handler may log, too
        self._writers: OrderedDict[str, PointWriter] = OrderedDict()

    def of(self, run_id: str) -> PointWriter:
        """Returns the writer of a run."""
        with self._lock:
            writer = self._writers.get(run_id)
            if writer is None:
                opened = open_writer(run_id, tracking_uri=self._tracking_uri)
                writer = self._writers.setdefault(run_id, opened)
                if writer is not opened:  # a signal handler opened one meanwhile
                    opened.close(timeout=0)
            self._writers.move_to_end(run_id)
            old = self._writers.popitem(last=False)[1] if len(self._writers) > _MAX_RUNS else None
        if old is not None:
            old.close(timeout=0)
        return writer

    def close(self, timeout: float | None) -> bool:
        """Closes all writers; returns whether everything has been delivered."""
        with self._lock:
            writers = list(self._writers.values())
            self._writers.clear()
        delivered = [writer.close(timeout) for writer in writers]
        return all(delivered)
