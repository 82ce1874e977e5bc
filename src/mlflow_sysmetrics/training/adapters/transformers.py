"""Hugging Face: a callback for ``transformers.Trainer`` that records a training on its run."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.training.adapters.epochs import epoch_name
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog, end_active_run
from mlflow_sysmetrics.training.best_epoch import MonitoredMetric
from mlflow_sysmetrics.training.extras import first_installed

_REMEDY = ', or give TrainingArguments report_to="mlflow"'
_MARK = "_mlflow_sysmetrics_watches_train"
_FRAMES = 6  # from our hook up to the Trainer's, with the callback handler's in between
# Metrics of an evaluation that describe its speed rather than the model.
_SPEED = ("_runtime", "_per_second", "_model_preparation_time", "_compilation_time")

_Callback: Any = first_installed("transformers", install="transformers").TrainerCallback


class SysMetricsCallback(_Callback):  # type: ignore[misc] # transformers has no types here
    """Records a training with Hugging Face's Trainer on the active run, yours or MLflowCallback's.

    A step is a step of the optimizer, ``state.global_step``. The Trainer reports losses only when it logs,
    every ``logging_steps``: ``train/loss_step`` is the mean since its last report, ``epoch/train_loss`` the
    mean of those within the epoch.

    Pass it to the Trainer's constructor, in ``callbacks=[...]``. Only then can it see how ``train()`` ends,
    so that a run that MLflowCallback has started ends FAILED, or KILLED after Ctrl-C.

    Args:
        run_id: the run; the active run by default.
        tracking_uri: the run's tracking server; needs `run_id`.
        monitor: the metric that ranks the epochs, such as "val_accuracy"; by default
            ``metric_for_best_model``, or else the first of val_f1_macro, val_loss and train_loss that the
            training has.
        mode: "min" or "max"; inferred from the name by default.
        log_system_metrics: whether to log hardware metrics at the steps of the training.
        system_metrics_interval: steps between two of these.

    Raises:
        ValueError: an argument is invalid, or does not go with another.
    """

    def __init__(
        self,
        *,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        monitor: str | None = None,
        mode: str | None = None,
        log_system_metrics: bool = False,
        system_metrics_interval: int = 10,
    ) -> None:
        self._choices = Choices(
            run_id=run_id,
            tracking_uri=tracking_uri,
            monitor=monitor,
            mode=mode,
            log_system_metrics=log_system_metrics,
            system_metrics_interval=system_metrics_interval,
        )
        self._log: TrainingLog | None = None
        self._had_own_run = False  # a run that was started and ended inside an earlier `train`
        self.active_before: tuple[str, ...] | None = None  # when `train` was called, if we could see the call
        self._logged_step = 0
        self._step_began = 0.0
        self._step_seconds: float | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wraps the Trainer's ``train``, to see an exception: there is no hook for it."""
        trainer = _trainer_of(self)
        if trainer is not None and not hasattr(type(trainer), _MARK):
            _watch_train(trainer)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Resets the state; opens no log yet, as MLflowCallback may start its run after this."""
        self._log = None
        self._logged_step = state.global_step
        self._step_seconds = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens the log before the first batch; after that, records the epoch before."""
        if not state.is_world_process_zero:
            return
        if self._log is None:
            self._log = self._open(args)
        self._log.epoch_began()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the timer."""
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures the time of a step, including all batches whose gradients it accumulates."""
        self._step_seconds = time.perf_counter() - self._step_began
        if self._log is not None:
            self._log.machine(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Records the losses that the Trainer reports for the steps since its last report."""
        if self._log is None or not logs or "loss" not in logs:
            return
        self._log.batch_loss(logs["loss"], max(state.global_step - self._logged_step, 1))
        self._logged_step = state.global_step
        self._log.step(
            state.global_step,
            accuracy=logs.get("accuracy"),
            learning_rate=logs.get("learning_rate"),
            batch_time_seconds=self._step_seconds,
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Takes the metrics of an evaluation within the training."""
        if self._log is not None:
            self._log.epoch_metrics(
                {
                    epoch_name(name): value
                    for name, value in (metrics or {}).items()
                    if name.startswith("eval_") and not name.endswith(_SPEED)
                }
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the end of the epoch, even one cut short by ``max_steps``; its evaluation follows."""
        if self._log is not None:
            self._log.epoch_ended(max(math.ceil(state.epoch or 0), 1))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Records the summary."""
        log, self._log = self._log, None
        if log is not None:
            log.finish(total_steps=state.global_step, early_stopped=state.global_step < state.max_steps)

    def close(self) -> None:
        """Closes the log of a training that did not finish."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _open(self, args: Any) -> TrainingLog:
        if self._had_own_run and self._choices.run_id is None and not fluent_state.active_run_ids():
            import mlflow

            # MLflowCallback starts a run for its first training only, and ends any active run.
            mlflow.start_run(run_name=args.run_name)
        log = TrainingLog(self._choices, remedy=_REMEDY, monitor=_monitor_of(args))
        if self.active_before is not None:
            self._had_own_run = log.run_id in set(fluent_state.active_run_ids()) - set(self.active_before)
        return log


def _watch_train(trainer: Any) -> None:
    """Makes the Trainer's ``train`` end the runs that were started inside it, with the right status.

    By a subclass: a method set on the object would form a reference cycle with the Trainer, and the model
    would keep its memory until the next garbage collection.
    """
    trainer.__class__ = _watched(type(trainer))


def _watched(kind: type) -> type:
    """Returns a subclass of a Trainer's class that watches ``train``."""
    original: Any = kind

    class Watched(original):  # type: ignore[misc] # a class known at run time only
        @functools.wraps(original.train)
        def train(self, *args: Any, **kwargs: Any) -> Any:
            before = fluent_state.active_run_ids()
            callbacks = [
                one for one in self.callback_handler.callbacks if isinstance(one, SysMetricsCallback)
            ]
            for callback in callbacks:
                callback.active_before = before
            try:
                return original.train(self, *args, **kwargs)
            except BaseException as error:  # Ctrl-C, too: the run ends with the exception's status
                for callback in callbacks:
                    callback.close()
                started_inside = [one for one in fluent_state.active_run_ids() if one not in before]
                if started_inside:
                    end_active_run(started_inside[0], error)
                raise

        def __reduce_ex__(self, protocol: Any) -> Any:
            # Pickle finds a class by its name, which here names the original.
            make, arguments, *rest = super().__reduce_ex__(protocol)
            plain = tuple(original if one is Watched else one for one in arguments)
            return _made_watched, (make, plain), *rest

    Watched.__name__, Watched.__qualname__ = kind.__name__, kind.__qualname__
    Watched.__module__ = kind.__module__
    setattr(Watched, _MARK, True)
    return Watched


def _made_watched(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Makes a Trainer again, from what pickle has kept of it."""
    trainer = make(*arguments)
    _watch_train(trainer)
    return trainer


def _trainer_of(callback: SysMetricsCallback) -> Any:
    """Returns the Trainer that is calling its callbacks, or None if it is not found.

    A hook gets the model, the optimizer and the loaders, but not the Trainer, which is a few frames up.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - documented for CPython and PyPy
    for _ in range(_FRAMES):
        candidate = frame.f_locals.get("self")
        if callback in getattr(getattr(candidate, "callback_handler", None), "callbacks", ()):
            return candidate
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def _monitor_of(args: Any) -> MonitoredMetric | None:
    """Returns the metric that ``metric_for_best_model`` names, or None."""
    name, greater = args.metric_for_best_model, args.greater_is_better
    if not name or greater is None:
        return None
    return MonitoredMetric(f"val_{name.removeprefix('eval_')}", "max" if greater else "min")
