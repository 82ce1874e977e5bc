"""One training on one run: where it begins, what it leaves behind after each epoch, how it ends."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.metric_names import ALLOWED, is_metric_name
from mlflow_sysmetrics.training.best_epoch import Monitor
from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.trainer import checkpoints
from mlflow_sysmetrics.training.trainer.arguments import Arguments
from mlflow_sysmetrics.training.trainer.batches import unwrapped
from mlflow_sysmetrics.training.trainer.checkpoints import Checkpoints, upload
from mlflow_sysmetrics.training.trainer.engines import Events
from mlflow_sysmetrics.training.trainer.loaders import length
from mlflow_sysmetrics.training.trainer.loop import Loop
from mlflow_sysmetrics.training.trainer.recording import Recording
from mlflow_sysmetrics.training.trainer.resume import Extent, Recorded, chosen_run, read_extent
from mlflow_sysmetrics.training.values import number

# FOLDED progress: A progress bar over all steps of a training.


class Progress:
    """Shows how far a training is. Ignite's own bar prints a whole line per step, and waits for the device.

    Args:
        wanted: None shows it on a terminal and in a notebook.
        epochs: how many there are.
        batches: per epoch; None where nobody knows.
        epoch: how many are done.
        step: as above.
    """

    def __init__(
        self, *, wanted: bool | None, epochs: int, batches: int | None, epoch: int, step: int
    ) -> None:
        self._epochs = epochs
        self._bar: Any = None
        if _seen() if wanted is None else wanted:
            total = None if batches is None else step + batches * (epochs - epoch)
            tqdm = needed("tqdm.auto", extra="train", by="the progress bar of Trainer").tqdm
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def epoch(self, epoch: int) -> None:
        """Shows which epoch begins."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}/{self._epochs}")

    def step(self) -> None:
        """Shows one step more; ten times a second at most."""
        if self._bar is not None:
            self._bar.update()

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """Shows a few metrics of the last epoch."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _seen() -> bool:
    """Tells whether somebody looks: at a terminal, or at a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


# FOLDED pruning: What an Optuna study makes of the epochs of a trial.


class Pruning:
    """Reports epochs to a trial.

    Args:
        trial: of Optuna; None has nothing to say.

    Attributes:
        pruned: whether the study wants no more of this trial.
    """

    def __init__(self, trial: Any | None) -> None:
        self.pruned = False
        self._trial = trial

    def look(self, epoch: int, value: float | None) -> None:
        """Reports the monitored metric of an epoch, if it has one, and asks whether to go on."""
        if self._trial is not None and value is not None:
            self._trial.report(value, step=epoch)
            self.pruned = bool(self._trial.should_prune())
            self._epoch = epoch

    def raise_if_pruned(self) -> None:
        """Ends the trial as the study wants it.

        Raises:
            optuna.TrialPruned: it does.
        """
        if self.pruned:
            optuna = needed("optuna", extra="hpo", by="Trainer.train(trial=...)")
            raise optuna.TrialPruned(f"pruned after epoch {self._epoch}")


_logger = logging.getLogger("mlflow_sysmetrics")


class Session:
    """Trains once.

    Args:
        loop: trains the model.
        arguments: of `Trainer`.
        pruning: what a study makes of the epochs.

    Raises:
        NoActiveRunError: there is no run to record to.
        ValueError: the checkpoints in the directory are of another run, or cannot be read.
        OSError: the directory cannot be written to.
    """

    def __init__(self, loop: Loop, arguments: Arguments, pruning: Pruning) -> None:
        self._loop = loop
        self._asked = arguments
        self._pruning = pruning
        self._model = unwrapped(arguments.model)
        self._loaders = (arguments.train_loader, arguments.val_loader)
        self._monitor = Monitor(
            arguments.early_stopping_metric,
            arguments.early_stopping_mode,
            arguments.patience,
            arguments.min_delta,
        )
        self._epoch = self._step = 0
        self._seconds = 0.0  # of training, in all processes that took part
        run_id = chosen_run(arguments.run_id, arguments.directory, resume=arguments.resume)
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
        if self._epoch:  # the process before may have died after its checkpoint
            self._recording.epoch(self._epoch, metrics)

    def run(self) -> dict[str, Any]:
        """Trains to the end, and returns the summary."""
        try:
            if not self._done:
                self._train()
            summary = self._summary()
            self._recording.final(self._step, summary)
            if self._asked.restore_best and not self._pruning.pruned:
                self._restore_best()
        finally:
            self._recording.close()
            self._leave_best()
        return summary

    @property
    def _done(self) -> bool:
        return self._monitor.exhausted or self._epoch >= self._asked.num_epochs

    def _begin(self, run_id: str) -> tuple[Extent, dict[str, float]]:
        """Goes on from the latest checkpoint, or writes the first; returns what the run has already."""
        if not self._asked.resume:
            self._checkpoints.forget()
        found = self._checkpoints.load_latest()
        if found is None:
            # First whose the directory is: a checkpoint of nobody knows which run could not be gone on with.
            Recorded(self._asked.directory, Extent(run_id)).close()
            self._checkpoints.try_out(self._state(run_id, {}))
            return Extent(run_id), {}
        if found["run_id"] != run_id:
            raise ValueError(
                f"the checkpoints in {self._checkpoints.directory} are of run {found['run_id']}, and this is "
                f"run {run_id}. To go on with that one: mlflow.start_run(run_id={found['run_id']!r}). "
                "To begin anew there: resume=False"
            )
        self._model.load_state_dict(found["model_state_dict"])
        self._asked.optimizer.load_state_dict(found["optimizer_state_dict"])
        self._loop.learning_rate.load_state_dict(found["scheduler_state_dict"])
        self._loop.gradients.load_state_dict(found["scaler_state_dict"])
        self._monitor.load_state_dict(found["monitor"])
        checkpoints.restore(found["random_states"], self._loop.device, self._loaders)
        self._epoch, self._step, self._seconds = found["epoch"], found["global_step"], found["seconds"]
        directory = self._checkpoints.directory
        _logger.info("mlflow-sysmetrics: going on after epoch %d of %s.", self._epoch, directory)
        extent = read_extent(directory)
        if extent is None or extent.run_id != run_id:
            extent = Extent(run_id, step=self._step, epoch=self._epoch)
        return extent, found["metrics"]

    def _state(self, run_id: str, metrics: dict[str, float]) -> dict[str, Any]:
        """Returns what it takes to go on after this epoch."""
        return {
            "run_id": run_id,
            "epoch": self._epoch,
            "global_step": self._step,
            "seconds": self._seconds,
            "metrics": metrics,
            "monitor": self._monitor.state_dict(),
            "model_state_dict": self._model.state_dict(),
            "optimizer_state_dict": self._asked.optimizer.state_dict(),
            "scheduler_state_dict": self._loop.learning_rate.state_dict(),
            "scaler_state_dict": self._loop.gradients.state_dict(),
            "random_states": checkpoints.random_states(self._loop.device, self._loaders),
        }

    def _train(self) -> None:
        self._began = time.perf_counter() - self._seconds
        self._progress = Progress(
            wanted=self._asked.progress,
            epochs=self._asked.num_epochs,
            batches=length(self._asked.train_loader),
            epoch=self._epoch,
            step=self._step,
        )
        engine = self._loop.engine
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        try:
            self._loop.run(epoch=self._epoch, step=self._step, num_epochs=self._asked.num_epochs)
        finally:
            self._progress.close()
        if engine.state.iteration > self._step:  # a handler of the caller has ended it within an epoch
            self._step, self._seconds = engine.state.iteration, time.perf_counter() - self._began

    def _begin_epoch(self, engine: Any) -> None:
        self._progress.epoch(engine.state.epoch)
        self._epoch_began = self._lap_began = time.perf_counter()
        self._lap_from = engine.state.iteration

    def _after_step(self, engine: Any) -> None:
        step = engine.state.iteration
        recorded = self._recording.step(step, self._step_values)
        if recorded and self._asked.stop_on_nan and not math.isfinite(engine.state.output):
            raise FloatingPointError(f"the loss of step {step} is {float(engine.state.output)}")
        self._progress.step()

    def _step_values(self) -> dict[str, object]:
        """Returns the values of the last step; its time is the mean since the last time that somebody asked.

        An accelerator works on after its step has returned, so that the time of one says little.
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
        improved = self._monitor.update(self._epoch, metrics)
        self._loop.learning_rate.after_epoch(metrics, self._monitor.name)
        metrics["duration_seconds"] = now - self._epoch_began
        if self._asked.stop_on_nan and not math.isfinite(metrics.get("train_loss", 0.0)):
            # Before the checkpoint is written: the weights that it would keep are no numbers either.
            self._recording.epoch(self._epoch, metrics)
            raise FloatingPointError(f"train_loss of epoch {self._epoch} is {metrics['train_loss']}")
        run_id = self._recording.run_id
        if improved:
            self._checkpoints.save_best(self._best(run_id, metrics))
        self._checkpoints.save_latest(self._state(run_id, metrics))
        self._recording.epoch(self._epoch, metrics)
        shown = ("train_loss", "val_loss", self._monitor.name)
        self._progress.metrics({name: one for name, one in metrics.items() if name in shown})
        self._pruning.look(self._epoch, metrics.get(self._monitor.name))
        if self._pruning.pruned or self._done:
            engine.terminate()

    def _best(self, run_id: str, metrics: dict[str, float]) -> dict[str, Any]:
        """Returns what others want of the best epoch: the weights, and what they are."""
        return {
            "model_state_dict": self._model.state_dict(),
            "epoch": self._epoch,
            "global_step": self._step,
            "metrics": metrics,
            "monitor": self._monitor.name,
            "run_id": run_id,
        }

    def _summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._monitor.best is not None:
            found = {f"best_{self._monitor.name}": self._monitor.best, "best_epoch": self._monitor.best_epoch}
        return found | {
            "total_epochs": self._epoch,
            "total_steps": self._step,
            "early_stopped": self._monitor.exhausted and self._epoch < self._asked.num_epochs,
            "duration_seconds": self._seconds,
        }

    def _restore_best(self) -> None:
        if self._monitor.best_epoch in {0, self._epoch}:
            return  # there is none, or it is what the model has
        best = self._checkpoints.load_best()
        if best is None or best["epoch"] != self._monitor.best_epoch:
            _logger.warning(
                "mlflow-sysmetrics: the weights of epoch %d, the best, could not be written; "
                "the model keeps those of epoch %d",
                self._monitor.best_epoch,
                self._epoch,
            )
            return
        self._model.load_state_dict(best["model_state_dict"])

    def _leave_best(self) -> None:
        """Logs the best checkpoint to the run; what cannot be logged stays on disk."""
        best = self._checkpoints.best
        wanted = best.exists() and not self._pruning.pruned
        if not wanted or upload(best, self._tracking_uri, self._recording.run_id, self._asked.upload_timeout):
            self._checkpoints.remove_temporary()


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Returns what an epoch has measured; what is no number is a handler's own business.

    Raises:
        ValueError: a number has a name that MLflow does not take. It is told before the epoch is kept, since
            a training could not go on from an epoch that cannot be recorded.
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        with suppress(TypeError, ValueError):
            found[name] = number(name, value)
    for name in found:
        if not is_metric_name(f"epoch/{name}"):
            raise ValueError(f"{name!r} cannot be the name of a metric; use up to 240 {ALLOWED}")
    return found
