"""What the adapters share: the log of one training, from its first batch to its summary."""

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
from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.metric_names import ALLOWED, is_metric_name
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.preflight.context import status_of
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.training.adapters.epochs import Best, Epoch, Mean, Monitor, checked_monitor
from mlflow_sysmetrics.training.recorder import MetricRecorder
from mlflow_sysmetrics.training.runs import chosen_run_id
from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
from mlflow_sysmetrics.training.values import Pending, as_number

_LONGEST_REASON = 200  # a value may print itself at length

_logger = logging.getLogger("mlflow_sysmetrics")
_warned: set[str] = set()
_open: dict[str, TrainingLog] = {}  # by run; a training that ends as it should leaves none


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user of an adapter has chosen.

    Attributes:
        run_id: the run; None where the framework or MLflow knows it.
        tracking_uri: its server; None is the one in force.
        logging_steps: as of `MetricRecorder`; None is what the framework does.
        monitor: metric of the epochs that says which was best; None is what the framework monitors.
        mode: "min" or "max".
        log_system_metrics: whether to log what the machine does at the steps of the training.
        system_metrics_interval: every how many steps.

    Raises:
        ValueError: one of them makes no sense.
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
                raise ValueError(f"{name}={value!r} is no whole number from 1 on")
        if self.tracking_uri is not None and self.run_id is None:
            raise ValueError(f"tracking_uri={self.tracking_uri!r} needs run_id=..., the run on that server")
        checked_monitor(self.monitor, self.mode)


class TrainingLog:
    """Records one training on its run, and has the run attached where nobody else has.

    A value that is no number is left out, with one warning for its name: a training is never worth a metric.

    Args:
        choices: of the user.
        remedy: how to have a run with this framework, for the message where there is none.
        run_id: the framework's own run, if it has one and the user has not named another.
        tracking_uri: the server of that run.
        logging_steps: as often as the framework logs, where the user does not say.
        monitor: what the framework monitors, likewise.

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
        monitor: Monitor | None = None,
    ) -> None:
        if choices.run_id is not None:
            run_id, tracking_uri = choices.run_id, choices.tracking_uri
        self.run_id = _run_id(run_id, remedy)
        replaced = _open.pop(self.run_id, None)
        if replaced is not None:  # a training that crashed, and is tried again
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
        self._best = Best(checked_monitor(choices.monitor, choices.mode) or monitor)
        self._epoch = Epoch()
        self._losses = Mean()  # since the last step
        self._epochs = 0
        self._began = time.perf_counter()
        self._lock = threading.RLock()  # Keras calls from a thread of its own
        self._closed = False
        self._pid = os.getpid()
        _remember(self)

    def wants(self, step: int) -> bool:
        """Tells whether a step is recorded."""
        return self._recorder.wants(step)

    def batch_loss(self, loss: object, weight: float = 1.0) -> None:
        """Takes the loss of a batch, for the mean of its step and of its epoch.

        Args:
            loss: of one batch, or the mean of several.
            weight: how many.
        """
        number = _number("loss", loss)
        if number is not None:
            self._losses.add(number, weight)
            self._epoch.losses.add(number, weight)

    def step(self, step: int, **metrics: object) -> None:
        """Records a step if it is one of those that are recorded.

        Args:
            step: number of the step, from 1.
            metrics: values by name; the loss is by default the mean of the batches since the step before.
        """
        loss = self._losses.take()
        with self._lock:
            if self.wants(step):
                self._recorder.step(step, _numbers({"loss": loss, **metrics}))

    def machine(self, step: int) -> None:
        """Logs what the machine does, if that is due at a step."""
        if self._machine is not None and step % self._machine_interval == 0:
            self._machine.log_metrics(step)

    def epoch_began(self) -> None:
        """Says that an epoch begins; what came after the end of the one before belonged to that."""
        self.write_epoch()
        self._epoch = Epoch()

    def epoch_metrics(self, metrics: Mapping[str, object]) -> None:
        """Takes metrics of the epoch under way, or of the one that ended last."""
        self._epoch.add(metrics)

    def epoch_ended(self, number: int) -> None:
        """Says that the batches of an epoch are over, and which it was, from 1; its validation may follow."""
        self._epoch.end(number)

    def write_epoch(self, metrics: Mapping[str, object] | None = None) -> None:
        """Records the epoch that has ended, if one has that is not recorded yet.

        Args:
            metrics: what else is known of it now.
        """
        number = self._epoch.number
        if number is None:
            return
        self._epoch.number = None
        self._epochs = number
        try:
            summary = _numbers({**self._epoch.summary(), **(metrics or {})})
            self._best.look(summary, number)
        except RuntimeError as error:  # the device has failed, and the training will say so, too
            _logger.warning(
                "mlflow-sysmetrics: epoch %d could not be fetched from its device: %s", number, error
            )
            return
        self._recorder.epoch(number, summary)

    def finish(self, *, total_steps: int, early_stopped: bool) -> None:
        """Records the summary of a training that came to its end, and closes the log."""
        if self._closed:
            return
        self.write_epoch()
        self._recorder.step(total_steps)  # nothing; the summary lies at the last step, recorded or not
        self._recorder.final(
            {
                **self._best.summary(),
                "total_epochs": self._epochs,
                "total_steps": total_steps,
                "early_stopped": early_stopped,
                "duration_seconds": time.perf_counter() - self._began,
            }
        )
        self.close()

    def close(self) -> None:
        """Hands everything over and lets go of the run; again, it does nothing."""
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
        """Closes the log of a training that raised, and ends its run where that is still active.

        For a run that nobody else ends: a ``with`` block around the training ends its own.
        """
        if os.getpid() != self._pid:
            return  # of a forked child the run is its parent's; MLflow 2.8 has it active there, too
        self.close()
        end_active_run(self.run_id, error)


def end_active_run(run_id: str, error: BaseException) -> None:
    """Ends a run that is active in this thread, and those inside it: FAILED, or KILLED after Ctrl-C.

    Args:
        run_id: the run; one that is not active is left as it is.
        error: what has ended its training, and is on its way to whoever handles it.
    """
    if run_id not in fluent_state.active_run_ids():
        return
    try:
        active_runs.end_run(run_id, status_of(error))
    except Exception as failed:  # noqa: BLE001 - MLflow's or its store's; the training's own error matters
        _logger.warning("mlflow-sysmetrics: run %s may be left RUNNING: %s", run_id, cleaned(str(failed)))


def _run_id(known: str | None, remedy: str) -> str:
    try:
        return chosen_run_id(known, by="This training")
    except NoActiveRunError as error:
        raise NoActiveRunError(f"{error}{remedy}") from None


def learning_rate_of(optimizer: object) -> object:
    """Returns the learning rate of a torch optimizer's first group; None of what has none."""
    groups = getattr(optimizer, "param_groups", None)
    return groups[0].get("lr") if groups else None


def _attached(run_id: str, tracking_uri: str | None) -> Attachment | None:
    """Returns what feeds the run; None where `mlflow.start_run` has decided that, or the user has said no."""
    settings = Settings.from_environ()
    if run_id in fluent_state.active_run_ids() or not (settings.providers and settings.metrics):
        return None
    return attach(run_id, tracking_uri=tracking_uri, settings=settings)


def _numbers(metrics: Mapping[str, object]) -> dict[str, object]:
    """Returns those that a recorder takes."""
    return {name: value for name, value in metrics.items() if _number(name, value) is not None}


def _number(name: str, value: object) -> float | Pending | None:
    """Returns a value as `as_number` does; None, with one warning for the name, of what is no number."""
    if value is None:
        return None
    try:
        if is_metric_name(f"epoch/{name}"):  # as long as any of the prefixes
            return as_number(name, value)
        reason = f"use up to 240 {ALLOWED}"
    except (TypeError, ValueError) as error:
        reason = str(error)[:_LONGEST_REASON]
    if name not in _warned:
        _warned.add(name)
        _logger.warning("mlflow-sysmetrics: metric %r is not recorded: %s", name, reason)
    return None


def _remember(log: TrainingLog) -> None:
    """Has a log that is never closed be closed when the interpreter ends."""
    if not _open:
        # After the daemon's own exit function, and MLflow's, which would end the run as FINISHED: the last
        # one that is registered runs first.
        atexit.unregister(_end_at_exit)
        atexit.register(_end_at_exit)
    _open[log.run_id] = log


def _end_at_exit() -> None:
    """Closes what is open. An exception that has ended the program has ended those trainings, too."""
    error = getattr(sys, "last_value", None)  # set where an exception reaches the top, and only there
    for log in tuple(_open.values()):
        if error is None:
            log.close()
        else:
            log.crashed(error)
