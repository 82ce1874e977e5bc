"""MetricRecorder: records a training's steps, epochs and summary as metrics of a run."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType

from mlflow_sysmetrics.daemon import Point, PointWriter, open_writer
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.active_runs import chosen_run_id
from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name
from mlflow_sysmetrics.training.detached import DetachedWriter
from mlflow_sysmetrics.training.values import Pending, as_number, as_step, fetch

STEP = "train"
EPOCH = "epoch"
FINAL = "final"

_MAX_KEYS = 10_000  # a program may choose a new name at each step
_MAX_PENDING = 500  # small copies on the device; more than a training logs in a few seconds

_logger = logging.getLogger("mlflow_sysmetrics")


class MetricRecorder:
    """Records a training's own metrics, with any framework or none.

    Steps go to ``train/...`` with the step as axis, epochs to ``epoch/...`` with the epoch as axis, counted
    from 1, the summary to ``final/...``. No call waits for a server or a disk: like the system metrics,
    points go through the journal and survive an outage and a crash.

    A value is a number, or an array or tensor of one element. A value on an accelerator stays there until the
    buffer is flushed, so that a step does not wait for the device. NaN and infinite values are recorded as
    such.

    A name is whatever the installed MLflow accepts.

    A copy made by pickle or `copy.deepcopy` records nothing, with one warning.

    Use it as a context manager, or call `close`.

    Args:
        run_id: the run; the active run of this thread by default.
        tracking_uri: the run's tracking server; the current one by default.
        logging_steps: records the first step and every step whose number is a multiple of this.
        buffer_seconds: longest time that a value stays on an accelerator while steps are recorded.

    Attributes:
        run_id: the run.
        logging_steps: the interval between recorded steps.

    Raises:
        NoActiveRunError: no run is active and `run_id` is not given.
        TypeError: `run_id` or `tracking_uri` is of a wrong type.
        ValueError: `logging_steps` or `buffer_seconds` is out of range, or `run_id` or `tracking_uri` names
            nothing.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        tracking_uri: str | None = None,
        logging_steps: int = 1,
        buffer_seconds: float = 5.0,
    ) -> None:
        if isinstance(logging_steps, bool) or not isinstance(logging_steps, int) or logging_steps < 1:
            raise ValueError(f"logging_steps must be an integer >= 1, got {logging_steps!r}")
        is_number = isinstance(buffer_seconds, (int, float)) and not isinstance(buffer_seconds, bool)
        if not is_number or not buffer_seconds >= 0:
            raise ValueError(f"buffer_seconds must be a number >= 0, got {buffer_seconds!r}")
        self.run_id = chosen_run_id(run_id, by="MetricRecorder")
        self.logging_steps = logging_steps
        self._writer: PointWriter | DetachedWriter = open_writer(self.run_id, tracking_uri=tracking_uri)
        self._buffer = _Buffer(self._writer, buffer_seconds)
        self._keys: dict[tuple[str, str], str] = {}
        self._last_step = 0
        self._first = True
        # The writer flushes the buffer when the run or the interpreter ends, the finalizer when this object
        # is garbage collected. At exit a finalizer would run too late: torch's run at the same time.
        self._writer.gather = self._buffer.flush
        weakref.finalize(self, self._buffer.end).atexit = False

    def __getstate__(self) -> dict[str, object]:
        """Leaves out what belongs to this process: a copy records nothing."""
        kept = ("run_id", "logging_steps", "_keys", "_last_step", "_first")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._writer = DetachedWriter("MetricRecorder")
        self._buffer = _Buffer(self._writer, 0.0)

    def wants(self, step: int) -> bool:
        """Returns whether a step is recorded, so that values for other steps need not be computed."""
        return self._first or step % self.logging_steps == 0

    def step(self, step: int, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records a step of the training, if it is the first or a multiple of `logging_steps`.

        ``loss`` and ``accuracy`` become ``train/loss_step`` and ``train/accuracy_step``. Any other name, such
        as ``learning_rate`` or ``batch_time_seconds``, becomes ``train/<name>``.

        Args:
            step: number of the step, over all epochs, from 1.
            metrics: values by name.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is not a number.
            ValueError: the step is negative, MLflow refuses a name, or a value has several elements.
        """
        step = as_step("step", step)
        if not self.wants(step):
            self._last_step = max(self._last_step, step)
            return
        self._record(STEP, {**(metrics or {}), **named}, step)
        self._first = False
        self._last_step = max(self._last_step, step)

    def epoch(self, epoch: int, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records the summary of an epoch: ``epoch/<name>``, with the epoch as axis.

        Args:
            epoch: number of the epoch, from 1.
            metrics: values by name, such as ``train_loss``, ``val_loss``, ``duration_seconds``.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is not a number.
            ValueError: the epoch is negative, MLflow refuses a name, or a value has several elements.
        """
        epoch = as_step("epoch", epoch)
        self._record(EPOCH, {**(metrics or {}), **named}, epoch)
        self.flush()

    def final(self, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records the summary of the training: ``final/<name>``, at the last step.

        Args:
            metrics: values by name, such as ``best_val_loss``, ``best_epoch``, ``total_epochs``,
                ``total_steps``, ``early_stopped``, ``duration_seconds``.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is not a number.
            ValueError: MLflow refuses a name, or a value has several elements.
        """
        self._record(FINAL, {**(metrics or {}), **named}, self._last_step)
        self.flush()

    def flush(self) -> None:
        """Fetches values from accelerators and queues them for delivery; does not wait for a server."""
        self._buffer.flush()

    def close(self, timeout: float | None = None) -> bool:
        """Flushes and waits for delivery.

        Args:
            timeout: longest wait in seconds. None is `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`, reduced by what
                earlier waits during the same outage have used of it; 0 does not wait.

        Returns:
            Whether the server has everything. If not, the rest is delivered later, if need be by another
            process.
        """
        self.flush()
        return self._writer.close(timeout)

    def __enter__(self) -> MetricRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _record(self, axis: str, metrics: Mapping[str, object], step: int) -> None:
        now = time.time_ns() // 1_000_000
        # Check all values before buffering any: a call that raises records nothing.
        values = [
            (self._key(axis, name), as_number(f"{axis}/{name}", value))
            for name, value in metrics.items()
            if value is not None
        ]
        self._buffer.put([(key, value, now, step) for key, value in values])

    def _key(self, axis: str, name: str) -> str:
        key = self._keys.get((axis, name))
        if key is None:
            key = f"{axis}/{name}_step" if axis == STEP and name in {"loss", "accuracy"} else f"{axis}/{name}"
            check_metric_name(key, name=name)
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            self._keys[axis, name] = key
        return key


class _Buffer:
    """Writes numbers at once and collects values on an accelerator, to fetch them together."""

    def __init__(self, writer: PointWriter | DetachedWriter, seconds: float) -> None:
        self._writer = writer
        self._seconds = seconds
        self._lock = threading.RLock()  # reentrant: a signal handler may record, too
        self._pending: list[tuple[str, Pending, int, int]] = []
        self._flush_at = 0.0
        self._pid = os.getpid()

    def put(self, values: list[tuple[str, float | Pending, int, int]]) -> None:
        """Adds values, each with its key, time and step."""
        if os.getpid() != self._pid:
            return
        known = [Point(key, one, at, step) for key, one, at, step in values if isinstance(one, float)]
        if known:
            self._writer.write(known)
        pending = [(key, one, at, step) for key, one, at, step in values if isinstance(one, Pending)]
        if pending:
            with self._lock:
                if not self._pending:
                    self._flush_at = time.monotonic() + self._seconds
                self._pending += pending
                due = len(self._pending) >= _MAX_PENDING or time.monotonic() >= self._flush_at
            if due:
                self.flush()

    def end(self) -> None:
        """Writes the pending values and closes the writer without a wait: nobody will write to it again."""
        self.flush()
        self._writer.release()

    def flush(self) -> None:
        """Fetches and writes the pending values; a forked child leaves them to its parent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._write(pending)
        except BaseException:  # raised by a signal handler: a later flush writes them
            with self._lock:
                self._pending = [*pending, *self._pending]
            raise

    def _write(self, pending: list[tuple[str, Pending, int, int]]) -> None:
        try:
            numbers = fetch([one for _, one, _, _ in pending])
        except RuntimeError as error:
            reraise_interruption(error)
            # The device has failed, which the training will report itself.
            _logger.warning(
                "mlflow-sysmetrics: %d values could not be fetched from their device and are lost: %s.",
                len(pending),
                error,
            )
            return
        self._writer.write(
            [Point(one[0], number, *one[2:]) for one, number in zip(pending, numbers, strict=True)]
        )
