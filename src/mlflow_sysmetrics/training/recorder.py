"""Steps, epochs and the summary of a training as metrics of a run: names, axes, throttling, buffering."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType

from mlflow_sysmetrics.daemon import Point, PointWriter, open_writer
from mlflow_sysmetrics.mlflow_api.metric_names import ALLOWED, is_metric_name
from mlflow_sysmetrics.training.runs import chosen_run_id
from mlflow_sysmetrics.training.values import Pending, as_number, as_place, fetch

STEP = "train"
EPOCH = "epoch"
FINAL = "final"

_MOST_PENDING = 500  # small copies on the device; more than a training logs in a few seconds

_logger = logging.getLogger("mlflow_sysmetrics")


class MetricRecorder:
    """Records a training's own metrics, with any framework or none.

    Steps go to ``train/...``, with the step as axis; epochs to ``epoch/...``, with the epoch as axis, counted
    from 1; the summary to ``final/...``. No call waits for a server or a disk: points go the way of the
    system metrics, through the journal, and survive an outage and a crash.

    A value is a number, or an array or tensor of one element. One on an accelerator stays there until the
    buffer is flushed, so that a step does not wait for the device. What is NaN or infinite is recorded so.

    It is a context manager, which closes it.

    Args:
        run_id: the run; by default the one that is active in this thread.
        tracking_uri: its tracking server; by default the one in force.
        logging_steps: of the steps, the first is recorded, and each whose number is a multiple of this.
        buffer_seconds: how long values stay on an accelerator at most while steps are recorded.

    Attributes:
        run_id: the run.
        logging_steps: as above.

    Raises:
        NoActiveRunError: there is no active run and no `run_id`.
        ValueError: `logging_steps` or `buffer_seconds` is out of range.
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
            raise ValueError(f"logging_steps={logging_steps!r} is no whole number from 1 on")
        if not isinstance(buffer_seconds, (int, float)) or not buffer_seconds >= 0:
            raise ValueError(f"buffer_seconds={buffer_seconds!r} is no number of seconds from 0 on")
        self.run_id = chosen_run_id(run_id, by="MetricRecorder")
        self.logging_steps = logging_steps
        self._writer = open_writer(self.run_id, tracking_uri=tracking_uri)
        self._buffer = _Buffer(self._writer, buffer_seconds)
        self._keys: dict[tuple[str, str], str] = {}
        self._last_step = 0
        self._first = True
        # One that is forgotten hands over what it holds, and so does one that is still open when its run or
        # the interpreter ends. Finalizers may run too late for that: torch has its own, and all run together.
        self._writer.gather = self._buffer.flush
        weakref.finalize(self, self._buffer.flush).atexit = False

    def wants(self, step: int) -> bool:
        """Tells whether a step is recorded, for who would compute something for it."""
        return self._first or step % self.logging_steps == 0

    def step(self, step: int, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records a step of the training, if it is one of those that are recorded.

        ``loss`` and ``accuracy`` become ``train/loss_step`` and ``train/accuracy_step``, every other name
        ``train/<name>``: ``learning_rate``, ``batch_time_seconds``, whatever there is.

        Args:
            step: number of the step, over all epochs, from 1.
            metrics: values by name.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is no number.
            ValueError: a step is negative, a name is none that MLflow takes, a value has many elements.
        """
        step = as_place("step", step)
        if not self.wants(step):
            self._last_step = max(self._last_step, step)
            return
        self._take(STEP, {**(metrics or {}), **named}, step)
        self._first = False
        self._last_step = max(self._last_step, step)

    def epoch(self, epoch: int, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records the summary of an epoch: ``epoch/<name>``, with the epoch as axis.

        Args:
            epoch: number of the epoch, from 1.
            metrics: values by name, such as ``train_loss``, ``val_loss``, ``duration_seconds``.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is no number.
            ValueError: an epoch is negative, a name is none that MLflow takes, a value has many elements.
        """
        epoch = as_place("epoch", epoch)
        self._take(EPOCH, {**(metrics or {}), **named}, epoch)
        self.flush()

    def final(self, metrics: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Records the summary of the training: ``final/<name>``, at the last step that was recorded.

        Args:
            metrics: values by name, such as ``best_val_loss``, ``best_epoch``, ``total_epochs``,
                ``total_steps``, ``early_stopped``, ``duration_seconds``.
            named: values by name; None is left out.

        Raises:
            TypeError: a value is no number.
            ValueError: a name is none that MLflow takes, a value has many elements.
        """
        self._take(FINAL, {**(metrics or {}), **named}, self._last_step)
        self.flush()

    def flush(self) -> None:
        """Fetches what lies on accelerators and hands it over for delivery; does not wait for a server."""
        self._buffer.flush()

    def close(self, timeout: float | None = None) -> bool:
        """Hands everything over and waits for its delivery.

        Args:
            timeout: longest wait in seconds; None is `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`, and less where an
                outage of the server has used it up already; 0 does not wait.

        Returns:
            Whether the server has everything; if not, it is delivered later, by another process at worst.
        """
        self.flush()
        return self._writer.close(timeout)

    def __enter__(self) -> MetricRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, axis: str, metrics: Mapping[str, object], place: int) -> None:
        now = time.time_ns() // 1_000_000
        # All are looked at before any is taken: a call that raises has recorded nothing.
        values = [
            (self._key(axis, name), as_number(f"{axis}/{name}", value))
            for name, value in metrics.items()
            if value is not None
        ]
        self._buffer.put([(key, value, now, place) for key, value in values])

    def _key(self, axis: str, name: str) -> str:
        key = self._keys.get((axis, name))
        if key is None:
            key = f"{axis}/{name}_step" if axis == STEP and name in {"loss", "accuracy"} else f"{axis}/{name}"
            if not is_metric_name(key):
                raise ValueError(f"{name!r} cannot be the name of a metric; use up to 240 {ALLOWED}")
            self._keys[axis, name] = key
        return key


class _Buffer:
    """Hands numbers over at once, and those that lie on an accelerator together with others."""

    def __init__(self, writer: PointWriter, seconds: float) -> None:
        self._writer = writer
        self._seconds = seconds
        self._lock = threading.RLock()  # a signal handler may come back in
        self._pending: list[tuple[str, Pending, int, int]] = []
        self._flush_at = 0.0
        self._pid = os.getpid()

    def put(self, values: list[tuple[str, float | Pending, int, int]]) -> None:
        """Takes values with their key, time and place."""
        if os.getpid() != self._pid:
            return
        known = [Point(key, one, at, place) for key, one, at, place in values if isinstance(one, float)]
        if known:
            self._writer.write(known)
        pending = [(key, one, at, place) for key, one, at, place in values if isinstance(one, Pending)]
        if pending:
            with self._lock:
                if not self._pending:
                    self._flush_at = time.monotonic() + self._seconds
                self._pending += pending
                due = len(self._pending) >= _MOST_PENDING or time.monotonic() >= self._flush_at
            if due:
                self.flush()

    def flush(self) -> None:
        """Fetches what is pending; in a forked child it is the parent's, and out of reach."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            numbers = fetch([one for _, one, _, _ in pending])
        except RuntimeError as error:  # the device has failed, and the training will say so, too
            _logger.warning(
                "mlflow-sysmetrics: %d values could not be fetched from their device and are lost: %s.",
                len(pending),
                error,
            )
            return
        self._writer.write(
            [Point(one[0], number, *one[2:]) for one, number in zip(pending, numbers, strict=True)]
        )
