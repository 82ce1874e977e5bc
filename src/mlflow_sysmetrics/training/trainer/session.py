"""One training on one run: its start or resume, its checkpoints and records, its end."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name
from mlflow_sysmetrics.training.best_epoch import BestEpoch
from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.trainer import checkpoints
from mlflow_sysmetrics.training.trainer.arguments import Arguments, length
from mlflow_sysmetrics.training.trainer.batches import unwrapped
from mlflow_sysmetrics.training.trainer.checkpoints import Checkpoints, upload
from mlflow_sysmetrics.training.trainer.engines import Events
from mlflow_sysmetrics.training.trainer.loop import Loop
from mlflow_sysmetrics.training.trainer.parameters import ParametersLog, parameters_of
from mlflow_sysmetrics.training.trainer.recording import Recording
from mlflow_sysmetrics.training.trainer.resume import (
    Extent,
    Recorded,
    chosen_run,
    read_extent,
    run_to_resume,
)
from mlflow_sysmetrics.training.values import number

_logger = logging.getLogger("mlflow_sysmetrics")


class Session:
    """Trains once.

    Args:
        loop: trains the model.
        arguments: the arguments of `Trainer`.
        pruning: reports epochs to a study.

    Raises:
        NoActiveRunError: there is no run to record to.
        ValueError: the checkpoints in the directory belong to another run or cannot be read, or MLflow
            refuses a name that `compute_metrics` returns.
        OSError: the directory cannot be written to.
    """

    def __init__(self, loop: Loop, arguments: Arguments, pruning: Pruning) -> None:
        self._loop = loop
        self._arguments = arguments
        self._pruning = pruning
        self._model = unwrapped(arguments.model)
        self._loaders = (arguments.train_loader, arguments.val_loader)
        self._best = BestEpoch(
            arguments.monitored, patience=arguments.patience, min_delta=arguments.min_delta
        )
        self._epoch = self._step = 0
        self._seconds = 0.0  # of training, over all processes
        run_id = chosen_run(arguments.run_id, arguments.directory, resume=arguments.resume)
        self._check_names()
        self._tracking_uri = current_tracking_uri()
        self._checkpoints = Checkpoints(arguments.directory)
        extent, metrics = self._begin(run_id)
        self._recording = Recording(
            extent,
            arguments.directory,
            logging_steps=arguments.logging_steps,
            system_metrics_interval=arguments.system_metrics_interval
            if arguments.log_system_metrics
            else None,
            device=loop.device,
        )
        self._parameters = self._log_parameters(run_id)
        if self._epoch:  # the process before may have died between its checkpoint and its record
            self._recording.epoch(self._epoch, metrics)

    def run(self) -> dict[str, Any]:
        """Trains to the end and returns the summary."""
        try:
            if not self._done:
                self._train()
            summary = self._summary()
            self._recording.final(self._step, summary)
            if self._arguments.restore_best and not self._pruning.pruned:
                self._restore_best()
        finally:
            self._recording.close()
            self._leave_best()
            if self._parameters is not None:
                self._parameters.finish()
        return summary

    def _log_parameters(self, run_id: str) -> ParametersLog | None:
        config = self._arguments.config
        known = parameters_of(self._arguments, self._loop.device) if self._arguments.log_params else {}
        if not known and config is None:
            return None
        return ParametersLog(self._tracking_uri, run_id, known, config)

    @property
    def _done(self) -> bool:
        return self._best.should_stop or self._epoch >= self._arguments.num_epochs

    def _check_names(self) -> None:
        """Checks the names of `compute_metrics` before anything is written, except on a resume."""
        directory = self._arguments.directory
        resumes = self._arguments.resume and directory is not None and run_to_resume(directory) is not None
        if self._loop.validation is None or self._arguments.compute_metrics is None or resumes:
            return
        # The training draws the same random numbers as without this check.
        states = checkpoints.random_states(self._loop.device, self._loaders)
        try:
            self._loop.validation.check_names()
        finally:
            checkpoints.restore(states, self._loop.device, self._loaders)

    def _begin(self, run_id: str) -> tuple[Extent, dict[str, float]]:
        """Resumes from the latest checkpoint or writes the first; returns what the run has already."""
        if not self._arguments.resume:
            self._checkpoints.forget()
        checkpoint = self._checkpoints.load_latest()
        if checkpoint is None:
            # Record the run id first: a checkpoint without one cannot be resumed.
            Recorded(self._arguments.directory, Extent(run_id)).close()
            self._checkpoints.try_out(self._state(run_id, {}))
            return Extent(run_id), {}
        if checkpoint["run_id"] != run_id:
            raise ValueError(
                f"the checkpoints in {self._checkpoints.directory} must belong to run {run_id}, but they "
                f"belong to run {checkpoint['run_id']}. To resume that, use "
                f"mlflow.start_run(run_id={checkpoint['run_id']!r}); to start afresh, pass resume=False"
            )
        self._model.load_state_dict(checkpoint["model_state_dict"])
        self._arguments.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        self._loop.learning_rate.load_state_dict(checkpoint["scheduler_state_dict"])
        self._loop.gradients.load_state_dict(checkpoint["scaler_state_dict"])
        self._best.load_state_dict(checkpoint["best_epoch"])
        checkpoints.restore(checkpoint["random_states"], self._loop.device, self._loaders)
        self._epoch, self._step, self._seconds = (
            checkpoint["epoch"],
            checkpoint["global_step"],
            checkpoint["seconds"],
        )
        directory = self._checkpoints.directory
        _logger.info("mlflow-sysmetrics: resuming after epoch %d from %s.", self._epoch, directory)
        extent = read_extent(directory)
        if extent is None or extent.run_id != run_id:
            extent = Extent(run_id, step=self._step, epoch=self._epoch)
        return extent, checkpoint["metrics"]

    def _state(self, run_id: str, metrics: dict[str, float]) -> dict[str, Any]:
        """Returns the complete state for resuming after this epoch."""
        return {
            "run_id": run_id,
            "epoch": self._epoch,
            "global_step": self._step,
            "seconds": self._seconds,
            "metrics": metrics,
            "best_epoch": self._best.state_dict(),
            "model_state_dict": self._model.state_dict(),
            "optimizer_state_dict": self._arguments.optimizer.state_dict(),
            "scheduler_state_dict": self._loop.learning_rate.state_dict(),
            "scaler_state_dict": self._loop.gradients.state_dict(),
            "random_states": checkpoints.random_states(self._loop.device, self._loaders),
        }

    def _best_state(self, run_id: str, metrics: dict[str, float]) -> dict[str, Any]:
        """Returns the best checkpoint: the weights and where they come from."""
        return {
            "model_state_dict": self._model.state_dict(),
            "epoch": self._epoch,
            "global_step": self._step,
            "metrics": metrics,
            "monitor": self._best.name,
            "run_id": run_id,
        }

    def _train(self) -> None:
        self._began = time.perf_counter() - self._seconds
        self._progress = _Progress(
            wanted=self._arguments.progress,
            epochs=self._arguments.num_epochs,
            batches=length(self._arguments.train_loader),
            epoch=self._epoch,
            step=self._step,
        )
        engine = self._loop.engine
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        try:
            self._loop.run(epoch=self._epoch, step=self._step, num_epochs=self._arguments.num_epochs)
        finally:
            self._progress.close()
        if engine.state.iteration > self._step:  # a handler of the user has ended it within an epoch
            self._step, self._seconds = engine.state.iteration, time.perf_counter() - self._began

    def _begin_epoch(self, engine: Any) -> None:
        self._progress.epoch(engine.state.epoch)
        self._epoch_began = self._lap_began = time.perf_counter()
        self._lap_from = engine.state.iteration

    def _after_step(self, engine: Any) -> None:
        step = engine.state.iteration
        recorded = self._recording.step(step, self._step_values)
        if recorded and self._arguments.stop_on_nan and not math.isfinite(engine.state.output):
            raise FloatingPointError(f"the loss of step {step} is {float(engine.state.output)}")
        self._progress.step()

    def _step_values(self) -> dict[str, object]:
        """Returns the values of the last step; its time is the mean since the last recorded step.

        An accelerator still works after a step has returned, so the time of a single step means little.
        """
        state, now = self._loop.engine.state, time.perf_counter()
        seconds = (now - self._lap_began) / (state.iteration - self._lap_from)
        self._lap_began, self._lap_from = now, state.iteration
        return {
            "loss": state.output,
            "accuracy": self._loop.step_accuracy(),
            "learning_rate": self._loop.step_rate,
            "batch_time_seconds": seconds,
        }

    def _after_epoch(self, engine: Any) -> None:
        now = time.perf_counter()
        self._epoch, self._step, self._seconds = engine.state.epoch, engine.state.iteration, now - self._began
        metrics = _numbers(engine.state.metrics)
        self._best.check_available(metrics)
        improved = self._best.update(self._epoch, metrics)
        self._loop.learning_rate.after_epoch(metrics, self._best.name)
        metrics["duration_seconds"] = now - self._epoch_began
        if self._arguments.stop_on_nan and not math.isfinite(metrics.get("train_loss", 0.0)):
            # Before the checkpoint is written: its weights would be NaN, too.
            self._recording.epoch(self._epoch, metrics)
            raise FloatingPointError(f"train_loss of epoch {self._epoch} is {metrics['train_loss']}")
        run_id = self._recording.run_id
        if improved:
            self._checkpoints.save_best(self._best_state(run_id, metrics))
        self._checkpoints.save_latest(self._state(run_id, metrics))
        self._recording.epoch(self._epoch, metrics)
        shown = ("train_loss", "val_loss", self._best.name)
        self._progress.metrics({name: one for name, one in metrics.items() if name in shown})
        self._pruning.report(self._epoch, metrics.get(self._best.name))
        if self._pruning.pruned or self._done:
            engine.terminate()

    def _summary(self) -> dict[str, Any]:
        return {
            **self._best.summary(),
            "total_epochs": self._epoch,
            "total_steps": self._step,
            "early_stopped": self._best.should_stop and self._epoch < self._arguments.num_epochs,
            "duration_seconds": self._seconds,
        }

    def _restore_best(self) -> None:
        if self._best.epoch in {0, self._epoch}:
            return  # there is no best epoch, or the model has its weights
        try:
            best = self._checkpoints.load_best()
        except (OSError, ValueError) as error:
            reraise_interruption(error)
            self._checkpoints.keep()
            _logger.warning(
                "mlflow-sysmetrics: the weights of the best epoch, %d, cannot be read from %s; "
                "the model keeps those of epoch %d: %s",
                self._best.epoch,
                self._checkpoints.best,
                self._epoch,
                error,
            )
            return
        if best is None or best["epoch"] != self._best.epoch:
            _logger.warning(
                "mlflow-sysmetrics: the weights of the best epoch, %d, could not be written; "
                "the model keeps those of epoch %d",
                self._best.epoch,
                self._epoch,
            )
            return
        self._model.load_state_dict(best["model_state_dict"])

    def _leave_best(self) -> None:
        """Logs the best checkpoint to the run; if that fails, the file stays on disk."""
        best = self._checkpoints.best
        wanted = best.exists() and not self._pruning.pruned
        timeout = self._arguments.upload_timeout
        if not wanted or upload(best, self._tracking_uri, self._recording.run_id, timeout):
            self._checkpoints.remove_temporary()


class Pruning:
    """Reports epochs to an Optuna trial and asks whether to prune it.

    Args:
        trial: the trial; None never prunes.

    Attributes:
        pruned: whether the study wants to prune the trial.
    """

    def __init__(self, trial: Any | None) -> None:
        self.pruned = False
        self._trial = trial

    def report(self, epoch: int, value: float | None) -> None:
        """Reports the monitored metric of an epoch, if the epoch has it."""
        if self._trial is not None and value is not None:
            self._trial.report(value, step=epoch)
            self.pruned = bool(self._trial.should_prune())
            self._epoch = epoch

    def raise_if_pruned(self) -> None:
        """Ends a pruned trial.

        Raises:
            optuna.TrialPruned: the study wants to prune the trial.
        """
        if self.pruned:
            optuna = needed("optuna", extra="hpo", by="Trainer.train(trial=...)")
            raise optuna.TrialPruned(f"pruned after epoch {self._epoch}")


class _Progress:
    """A progress bar over all steps. Ignite's own prints a line per step and waits for the device.

    Args:
        wanted: None shows it at a terminal and in a notebook.
        epochs: number of epochs.
        batches: batches per epoch; None if unknown.
        epoch: epochs done so far.
        step: steps done so far.
    """

    def __init__(
        self, *, wanted: bool | None, epochs: int, batches: int | None, epoch: int, step: int
    ) -> None:
        self._epochs = epochs
        self._bar: Any = None
        if _is_visible() if wanted is None else wanted:
            total = None if batches is None else step + batches * (epochs - epoch)
            tqdm = needed("tqdm.auto", extra="train", by="the progress bar of Trainer").tqdm
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def epoch(self, epoch: int) -> None:
        """Shows the number of the epoch that starts."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}/{self._epochs}")

    def step(self) -> None:
        """Advances by one step; the bar is redrawn at most ten times a second."""
        if self._bar is not None:
            self._bar.update()

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Shows metrics of the last epoch."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _is_visible() -> bool:
    """Returns whether a progress bar would be seen: at a terminal or in a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Returns the metrics of an epoch that are numbers; a handler may keep other values there.

    Raises:
        ValueError: MLflow refuses a name. Raised before the checkpoint is written: the training could not be
            resumed from an epoch that cannot be recorded.
    """
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        with suppress(TypeError, ValueError):
            numbers[name] = number(name, value)
    for name in numbers:
        check_metric_name(f"epoch/{name}", name=name)
    return numbers
