"""Hugging Face: a callback for ``transformers.Trainer`` that records a training on its run."""

from __future__ import annotations

import functools
import math
import sys
import time
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.training.adapters.epochs import Monitor, epoch_name
from mlflow_sysmetrics.training.adapters.framework import first_installed
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog, end_active_run

_REMEDY = ', or give TrainingArguments report_to="mlflow"'
_FRAMES = 6  # from our hook up to the Trainer's own: the callback handler lies between
# What an evaluation says of its own speed, and not of the model.
_NOT_OF_THE_MODEL = ("_runtime", "_per_second", "_model_preparation_time", "_compilation_time")

_Callback: Any = first_installed("transformers", install="transformers").TrainerCallback


class SysMetricsCallback(_Callback):  # type: ignore[misc] # transformers is untyped to us
    """Records a training with Hugging Face's Trainer on the active run, whoever has started that.

    A step is a step of the optimizer, as in ``state.global_step``. The Trainer hands out losses only when it
    logs, every ``logging_steps``: ``train/loss_step`` is the mean since it did so last, and
    ``epoch/train_loss`` the mean of those within the epoch.

    Give it to the Trainer's constructor, in ``callbacks=[...]``: it then sees how ``train()`` ends, and a run
    that MLflowCallback has started ends FAILED, or KILLED after Ctrl-C.

    Args:
        run_id: the run, where it is not the active one.
        tracking_uri: its tracking server.
        monitor: metric of the epochs that says which was best, such as "val_accuracy"; by default
            ``metric_for_best_model``, or else the loss.
        mode: "min" or "max".
        log_system_metrics: whether to log what the machine does at the steps of the training.
        system_metrics_interval: every how many steps.

    Raises:
        ValueError: an argument makes no sense.
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
        self._had_own_run = False  # of a training before: one that was started, and ended, inside `train`
        self.active_before: tuple[str, ...] | None = None  # when `train` was called, if we could see that
        self._logged_step = 0
        self._step_began = 0.0
        self._step_seconds: float | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Has the Trainer's ``train`` tell how it ends: no hook does."""
        trainer = _trainer_of(self)
        if trainer is not None:
            _tell_how_it_ends(trainer, self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forgets a training that crashed; the run may not exist yet: MLflowCallback may come after us."""
        self._log = None
        self._logged_step = state.global_step
        self._step_seconds = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens the log before the first batch; later, records the epoch before."""
        if not state.is_world_process_zero:
            return
        if self._log is None:
            self._log = self._open(args)
        self._log.epoch_began()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins to take the time."""
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the time of a step, with all the batches whose gradients it has accumulated."""
        self._step_seconds = time.perf_counter() - self._step_began
        if self._log is not None:
            self._log.machine(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Records what the Trainer says of its steps since it has last done so."""
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
        """Takes what an evaluation within the training has found."""
        if self._log is not None:
            self._log.epoch_metrics(
                {
                    epoch_name(name): value
                    for name, value in (metrics or {}).items()
                    if name.startswith("eval_") and not name.endswith(_NOT_OF_THE_MODEL)
                }
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the epoch, also one that ``max_steps`` cuts short; its evaluation comes after this."""
        if self._log is not None:
            self._log.epoch_ended(max(math.ceil(state.epoch or 0), 1))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Records the summary."""
        log, self._log = self._log, None
        if log is not None:
            log.finish(total_steps=state.global_step, early_stopped=state.global_step < state.max_steps)

    def close(self) -> None:
        """Hands over what there is of a training that has not come to its end."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _open(self, args: Any) -> TrainingLog:
        if self._had_own_run and self._choices.run_id is None and not fluent_state.active_run_ids():
            import mlflow

            # MLflowCallback starts a run for its first training only, and ends whatever run is active.
            mlflow.start_run(run_name=args.run_name)
        log = TrainingLog(self._choices, remedy=_REMEDY, monitor=_monitor_of(args))
        if self.active_before is not None:
            self._had_own_run = log.run_id in set(fluent_state.active_run_ids()) - set(self.active_before)
        return log


def _tell_how_it_ends(trainer: Any, callback: SysMetricsCallback) -> None:
    """Has the Trainer's ``train`` end, as it ends itself, the runs that were started inside it.

    By a class of its own. A method that is put on the object would hold the Trainer, and the Trainer it: the
    model would keep its memory until Python looks for cycles, where today it is gone with the last name.
    """
    kind = type(trainer)

    class Told(kind):  # type: ignore[misc, valid-type] # as said
        @functools.wraps(kind.train)
        def train(self, *args: Any, **kwargs: Any) -> Any:
            callback.active_before = before = fluent_state.active_run_ids()
            try:
                return kind.train(self, *args, **kwargs)
            except BaseException as error:  # whatever has ended the training is how its run ends
                callback.close()
                started_inside = [one for one in fluent_state.active_run_ids() if one not in before]
                if started_inside:
                    end_active_run(started_inside[0], error)
                raise

    Told.__name__, Told.__qualname__, Told.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    trainer.__class__ = Told


def _trainer_of(callback: SysMetricsCallback) -> Any:
    """Returns the Trainer that is calling its callbacks; None where it is not found.

    A hook is told of the model, the optimizer and the loaders, but not of the Trainer, a few frames up.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - documented for CPython and PyPy
    for _ in range(_FRAMES):
        found = frame.f_locals.get("self")
        if callback in getattr(getattr(found, "callback_handler", None), "callbacks", ()):
            return found
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def _monitor_of(args: Any) -> Monitor | None:
    """Returns what ``metric_for_best_model`` names; None where it is not set."""
    name, greater = args.metric_for_best_model, args.greater_is_better
    if not name or greater is None:
        return None
    return Monitor(f"val_{name.removeprefix('eval_')}", "max" if greater else "min")
