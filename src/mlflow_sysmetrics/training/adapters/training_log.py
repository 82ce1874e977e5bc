"""The log of one training, from its first batch to its summary; all adapters share it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_sysmetrics.daemon import Attachment, attach
from mlflow_sysmetrics.errors import NoActiveRunError, shortened
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.active_runs import chosen_run_id
from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.preflight.api import status_of
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.training.adapters.epochs import Epoch, Mean
from mlflow_sysmetrics.training.best_epoch import BestEpoch, MonitoredMetric, monitored_metric
from mlflow_sysmetrics.training.recorder import MetricRecorder
from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
from mlflow_sysmetrics.training.values import Pending, as_number, number

_LONGEST_REASON = 300  # the repr of a value can be long

_logger = logging.getLogger("mlflow_sysmetrics")
_warned: set[str] = set()
_MOST_WARNINGS = 100  # a program may choose a new name at each step
_open: dict[str, TrainingLog] = {}  # by run id; a log that was closed is not among them


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The arguments that every adapter has.

    Attributes:
        run_id: the run; None leaves the choice to the framework or MLflow.
        tracking_uri: the run's tracking server; None is the current one.
        logging_steps: see `MetricRecorder`; None is the framework's own interval.
        monitor: the metric that ranks the epochs; None is the one that the framework monitors, or a default.
        mode: "min" or "max"; None infers it from the name.
        log_system_metrics: whether to log hardware metrics at the steps of the training.
        system_metrics_interval: steps between two of these.

    Raises:
        ValueError: an argument is invalid, or does not go with another.
    """

    run_id: str | None = None
    tracking_uri: str | None = None
    logging_steps: int | None = None
    monitor: str | None = None
    mode: str | None = None
    log_system_metrics: bool = False
    system_metrics_interval: int = 10

    def __post_init__(self) -> None:
        for name in ("logging_steps", "system_metrics_interval"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.tracking_uri is not None and self.run_id is None:
            raise ValueError(f"tracking_uri={self.tracking_uri!r} needs run_id=..., the run on that server")
        monitored_metric(self.monitor, self.mode)


class TrainingLog:
    """Records one training on its run, and attaches the run if it is not attached yet.

    A value that is not a number, or whose name MLflow refuses, is left out with one warning for its name: it
    is never worth ending a training.

    Args:
        choices: the arguments of the adapter.
        remedy: how to get a run with this framework, for the message if there is none.
        run_id: the framework's own run; `choices` override it.
        tracking_uri: the tracking server of that run.
        logging_steps: the framework's own interval; `choices` override it.
        monitor: the metric that the framework monitors; `choices` override it.

    Raises:
        NoActiveRunError: there is no run to write to.
    """

    def __init__(
        self,
        choices: Choices,
        *,
        remedy: str = "",
        run_id: str | None = None,
        tracking_uri: str | None = None,
        logging_steps: int = 1,
        monitor: MonitoredMetric | None = None,
    ) -> None:
        if choices.run_id is not None:
            run_id, tracking_uri = choices.run_id, choices.tracking_uri
        self.run_id = _run_id(run_id, remedy)
        replaced = _open.pop(self.run_id, None)
        if replaced is not None:  # a training that crashed and is started again
            replaced.close()
        self._recorder = MetricRecorder(
            self.run_id, tracking_uri=tracking_uri, logging_steps=choices.logging_steps or logging_steps
        )
        self._attachment = _attached(self.run_id, tracking_uri)
        self._machine = (
            SystemMetricsLogger(run_id=self.run_id, tracking_uri=tracking_uri)
            if choices.log_system_metrics
            else None
        )
        self._machine_interval = choices.system_metrics_interval
        self._best = BestEpoch(monitored_metric(choices.monitor, choices.mode) or monitor)
        self._epoch = Epoch()
        self._losses = Mean()  # since the last step
        self._epochs = 0
        self._began = time.perf_counter()
        self._lock = threading.RLock()  # Keras calls from another thread
        self._closed = False
        self._pid = os.getpid()
        _remember(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Becomes None when the callback that holds it is pickled or deep-copied: the original records."""
        return type(None), ()

    def wants(self, step: int) -> bool:
        """Returns whether a step is recorded."""
        return self._recorder.wants(step)

    def batch_loss(self, loss: object, weight: float = 1.0) -> None:
        """Adds the loss of a batch to the means of its step and its epoch.

        Args:
            loss: the loss of a batch, or the mean loss of several.
            weight: the number of batches.
        """
        value = _number("loss", loss)
        if value is not None:
            self._losses.add(value, weight)
            self._epoch.losses.add(value, weight)

    def step(self, step: int, **metrics: object) -> None:
        """Records a step, if it is the first or a multiple of `logging_steps`.

        Args:
            step: number of the step, from 1.
            metrics: values by name; the loss defaults to the mean over the batches since the last step.
        """
        loss = self._losses.take()
        with self._lock:
            if self.wants(step):
                self._recorder.step(step, _numbers({"loss": loss, **metrics}))

    def machine(self, step: int) -> None:
        """Logs hardware metrics, if they are due at this step."""
        if self._machine is not None and step % self._machine_interval == 0:
            self._machine.log_metrics(step)

    def epoch_began(self) -> None:
        """Records the epoch before, which has everything by now, and starts a new one."""
        self.write_epoch()
        self._epoch = Epoch()

    def epoch_metrics(self, metrics: Mapping[str, object]) -> None:
        """Adds metrics of the current epoch, or of the one that ended last."""
        self._epoch.add(metrics)

    def epoch_ended(self, number: int) -> None:
        """Marks the end of an epoch's batches, its number counted from 1; its validation may follow."""
        self._epoch.end(number)

    def write_epoch(self, metrics: Mapping[str, object] | None = None) -> None:
        """Records the epoch that has ended, unless it is recorded already.

        Args:
            metrics: further metrics of the epoch.
        """
        number = self._epoch.number
        if number is None:
            return
        self._epoch.number = None
        self._epochs = number
        try:
            summary = _numbers({**self._epoch.summary(), **(metrics or {})})
            self._best.update(number, _floats(summary, self._best.candidates))
        except RuntimeError as error:
            reraise_interruption(error)
            # The device has failed, which the training will report itself.
            _logger.warning(
                "mlflow-sysmetrics: epoch %d could not be fetched from its device: %s", number, error
            )
            return
        self._recorder.epoch(number, summary)

    def finish(self, *, total_steps: int, early_stopped: bool) -> None:
        """Records the summary of a training that has ended normally, and closes the log."""
        if self._closed:
            return
        self.write_epoch()
        self._recorder.step(total_steps)  # without values: places the summary at the last step
        summary = {
            **self._best.summary(),
            "total_epochs": self._epochs,
            "total_steps": total_steps,
            "early_stopped": early_stopped,
            "duration_seconds": time.perf_counter() - self._began,
        }
        self._recorder.final(_numbers(summary))
        self.close()

    def close(self) -> None:
        """Flushes the log and detaches the run; does nothing if it is closed already."""
        if self._closed:
            return
        self._closed = True
        if _open.get(self.run_id) is self:
            del _open[self.run_id]
        self.write_epoch()
        self._recorder.close()
        if self._machine is not None:
            self._machine.close()
        if self._attachment is not None:
            self._attachment.detach()

    def crashed(self, error: BaseException) -> None:
        """Closes the log of a training that raised, and ends its run if it is still active.

        Call it only for a run that nothing else ends: a ``with`` block around the training ends its own run.
        """
        if os.getpid() != self._pid:
            return  # a forked child inherits the run of its parent, which MLflow 2.8 reports as active there
        self.close()
        end_active_run(self.run_id, error)


def end_active_run(run_id: str, error: BaseException) -> None:
    """Ends a run that is active in this thread, and the runs nested in it: FAILED, or KILLED after Ctrl-C.

    Args:
        run_id: the run; does nothing if it is not active.
        error: the exception that ended the training.
    """
    if run_id not in fluent_state.active_run_ids():
        return
    try:
        active_runs.end_run(run_id, status_of(error))
    except Exception as failed:  # noqa: BLE001 - MLflow's or its store's; must not hide the training's
        reraise_interruption(failed)
        _logger.warning("mlflow-sysmetrics: run %s may be left RUNNING: %s", run_id, cleaned(str(failed)))


def learning_rate_of(optimizer: object) -> object:
    """Returns the learning rate of a torch optimizer's first group, or None if it has none."""
    groups = getattr(optimizer, "param_groups", None)
    return groups[0].get("lr") if groups else None


def _run_id(known: str | None, remedy: str) -> str:
    try:
        return chosen_run_id(known, by="This training")
    except NoActiveRunError as error:
        raise NoActiveRunError(f"{error}{remedy}") from None


def _attached(run_id: str, tracking_uri: str | None) -> Attachment | None:
    """Attaches the run, unless `mlflow.start_run` has decided about it or system metrics are off."""
    settings = Settings.from_environ()
    if run_id in fluent_state.active_run_ids() or not (settings.providers and settings.metrics):
        return None
    return attach(run_id, tracking_uri=tracking_uri, settings=settings)


def _numbers(metrics: Mapping[str, object]) -> dict[str, object]:
    """Returns the metrics that a recorder accepts."""
    return {name: value for name, value in metrics.items() if _number(name, value) is not None}


def _number(name: str, value: object) -> float | Pending | None:
    """Returns a value as `as_number` does; None, with one warning per name, if it cannot be recorded."""
    if value is None:
        return None
    try:
        check_metric_name(f"epoch/{name}", name=name)  # no other prefix is longer
        return as_number(name, value)
    except (TypeError, ValueError) as error:
        if name not in _warned and len(_warned) < _MOST_WARNINGS:
            _warned.add(name)
            reason = shortened(str(error), _LONGEST_REASON)
            _logger.warning("mlflow-sysmetrics: metric %r is not recorded: %s", name, reason)
    return None


def _floats(metrics: Mapping[str, object], names: tuple[str, ...]) -> dict[str, float]:
    """Returns some metrics as floats; waits for the device if they are on an accelerator."""
    return {name: number(name, metrics[name]) for name in names if name in metrics}


def _remember(log: TrainingLog) -> None:
    """Registers a log, to be closed at exit if nothing closes it earlier."""
    if not _open:
        # Exit functions run last in, first out: this one has to run before the daemon's, and before MLflow's,
        # which would end the run as FINISHED.
        atexit.unregister(_end_at_exit)
        atexit.register(_end_at_exit)
    _open[log.run_id] = log


def _end_at_exit() -> None:
    """Closes all open logs; if an exception has ended the program, it has ended these trainings, too."""
    error = getattr(sys, "last_value", None)  # set only if an exception reaches the top level
    for log in tuple(_open.values()):
        if error is None:
            log.close()
        else:
            log.crashed(error)
