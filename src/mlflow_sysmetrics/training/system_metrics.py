"""What the machine does, beside a training's own metrics and on the same axis: its steps."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from types import TracebackType

from mlflow_sysmetrics.daemon import Point, PointWriter, Watch, open_writer, watch
from mlflow_sysmetrics.mlflow_api.metric_names import ALLOWED, is_metric_name
from mlflow_sysmetrics.training.runs import active_run_id
from mlflow_sysmetrics.training.values import as_place

_PER_GB = 1e-3  # of the megabytes that the sampler reads: 1 GB is 1e9 bytes
# Our name, the sampler's, and what its value is multiplied by.
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

_FIRST_READINGS_SECONDS = 1.0  # the two that rates need take a quarter of that
_MOST_RUNS = 16  # that are written to in turn; the one before these is done with


class SystemMetricsLogger:
    """Logs what the machine does at the steps of a training.

    It reads nothing itself: it shows what the sampling thread of this process has read last, a second ago at
    most, or the sampling interval where that is longer. So a call takes some microseconds and never waits.
    What this machine cannot tell is absent.

    Units: gigabytes are 1e9 bytes, megabytes 1e6; percentages 0 to 100, in a container of what it may use.

    It is a context manager, which closes it; one that is not closed stops the reading a minute after its last
    call.

    Args:
        log_cpu: logs ``cpu_percent``, ``memory_used_gb``, ``memory_percent``.
        log_gpu: logs ``gpu_utilization_percent``, ``gpu_memory_used_gb``, ``gpu_temperature_celsius``,
            ``gpu_power_watts``, and of torch's allocator ``gpu_memory_allocated_gb`` and
            ``gpu_memory_reserved_gb``.
        log_disk: logs ``disk_read_mb_per_s``, ``disk_write_mb_per_s``.
        log_network: logs ``network_receive_mb_per_s``, ``network_transmit_mb_per_s``.
        gpu_device: which of the visible GPUs, as CUDA numbers them.
        run_id: the run to log to; by default the one that is active in the thread of each call.
        tracking_uri: its tracking server; by default the one in force.

    Raises:
        ValueError: `gpu_device` is no whole number from 0 on.
    """

    def __init__(
        self,
        log_cpu: bool = True,  # noqa: FBT001, FBT002 - the signature that users know
        log_gpu: bool = True,  # noqa: FBT001, FBT002 - as above
        log_disk: bool = False,  # noqa: FBT001, FBT002
        log_network: bool = False,  # noqa: FBT001, FBT002
        gpu_device: int = 0,
        *,
        run_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        if isinstance(gpu_device, bool) or not isinstance(gpu_device, int) or gpu_device < 0:
            raise ValueError(f"gpu_device={gpu_device!r} is no whole number from 0 on")
        groups = ((log_cpu, _CPU), (log_gpu, _GPU), (log_disk, _DISK), (log_network, _NETWORK))
        self._metrics = tuple(
            (name, key.format(i=gpu_device), factor)
            for wanted, group in groups
            for name, key, factor in group
            if wanted
        )
        self._run_id = run_id
        self._writers = _Writers(tracking_uri)
        self._watch: Watch = watch()
        self._watch.wait(readings=2, timeout=_FIRST_READINGS_SECONDS)

    def read(self) -> dict[str, float]:
        """Returns the last reading, without logging it."""
        reading = self._watch.read()
        return {name: reading[key] * factor for name, key, factor in self._metrics if key in reading}

    def log_metrics(self, step: int | None = None, prefix: str = "system") -> dict[str, float]:
        """Logs the last reading to the run, if there is one.

        Args:
            step: of the training; by default whole seconds since the run started.
            prefix: what stands before the names, and a slash.

        Returns:
            Values by name, without prefix; also where there is no run to log to.

        Raises:
            ValueError: `step` is no whole number from 0 on, or `prefix` cannot begin the name of a metric.
        """
        place = None if step is None else as_place("step", step)
        if not isinstance(prefix, str) or not is_metric_name(prefix, 200):
            raise ValueError(f"prefix={prefix!r} cannot begin the name of a metric; use up to 200 {ALLOWED}")
        values = self.read()
        run_id = self._run_id or active_run_id()
        if run_id is not None and values:
            now = time.time_ns() // 1_000_000
            points = [Point(f"{prefix}/{name}", value, now, place) for name, value in values.items()]
            self._writers.of(run_id).write(points)
        return values

    def close(self, timeout: float | None = None) -> bool:
        """Stops looking, and waits for the delivery of what was logged.

        Args:
            timeout: as that of `MetricRecorder.close`.

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
    """The writers of the runs that are logged to: of one mostly, of one per trial in a study.

    Args:
        tracking_uri: the server of all of them; None for that which is in force when a run is met.
    """

    def __init__(self, tracking_uri: str | None) -> None:
        self._tracking_uri = tracking_uri
        self._lock = threading.RLock()  # a signal handler may come back in
        self._writers: OrderedDict[str, PointWriter] = OrderedDict()

    def of(self, run_id: str) -> PointWriter:
        """Returns the writer of a run."""
        with self._lock:
            writer = self._writers.get(run_id)
            if writer is None:
                opened = open_writer(run_id, tracking_uri=self._tracking_uri)
                writer = self._writers.setdefault(run_id, opened)
                if writer is not opened:  # a signal handler has been faster
                    opened.close(timeout=0)
            self._writers.move_to_end(run_id)
            old = self._writers.popitem(last=False)[1] if len(self._writers) > _MOST_RUNS else None
        if old is not None:
            old.close(timeout=0)
        return writer

    def close(self, timeout: float | None) -> bool:
        """Closes all of them; returns whether everything has been delivered."""
        with self._lock:
            writers = list(self._writers.values())
            self._writers.clear()
        return all([writer.close(timeout) for writer in writers])  # noqa: C419 - each is to be closed
