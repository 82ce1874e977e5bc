"""Trainer: the public class. Imports without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.trainer.arguments import Arguments
from mlflow_sysmetrics.training.trainer.resume import run_if_none_is_active

if TYPE_CHECKING:
    import torch


class Trainer:
    """Trains a model, records steps, epochs and the summary on a run, and keeps the best weights.

    ::

        with mlflow.start_run():  # or without: train() then starts a run
            Trainer(model, train_loader, val_loader, optimizer, criterion, "cuda", patience=3).train()

    It runs on the engines of pytorch-ignite. Add handlers to `engine` or `evaluator` for anything else; a
    number that a handler puts into ``engine.state.metrics`` at the end of an epoch is recorded with the
    others.

    A batch is a dict that contains the labels, and whose other keys are matched to the parameters of
    `forward`, or a tuple whose last item is the labels. A step is one batch. Nothing in the loop waits for
    the tracking server.

    Args:
        model: the model; it is moved to the device. From outputs of Hugging Face models, ``logits`` is used.
        train_loader: yields the batches of an epoch each time it is iterated.
        val_loader: the same for the validation after each epoch; None skips validation.
        optimizer: an optimizer of the model's parameters.
        criterion: computes the loss from logits and labels; None uses the ``loss`` that the model returns.
        device: a device of torch, or its name.
        num_epochs: total number of epochs, including those before a resume.
        patience: epochs without improvement after which training stops; None disables early stopping.
        gradient_clip: largest norm of the gradients of a step; None does not clip.
        gradient_accumulation_steps: batches per optimizer step. The last step of an epoch may have fewer.
        scheduler: a learning rate scheduler.
        save_dir: directory of the checkpoints, also for resuming; None disables resuming and keeps only the
            best checkpoint, as an artifact. It must be on a file system of this machine: for a restart on
            another one, on a shared or mounted one.
        use_amp: computes in mixed precision.
        amp_dtype: "float16" or "bfloat16"; a CPU always uses bfloat16.
        early_stopping_metric: the metric that ranks the epochs, such as "val_loss"; by default the first of
            val_f1_macro, val_loss and train_loss that the training has.
        early_stopping_mode: "min" or "max"; inferred from the name by default.
        min_delta: an improvement of at most this much does not reset `patience`.
        logging_steps: records the first step and every step whose number is a multiple of this.
        log_system_metrics: records hardware metrics with the step as axis.
        system_metrics_interval: steps between two of these.
        scheduler_interval: "step" advances the scheduler after each optimizer step, "epoch" after each epoch.
            ReduceLROnPlateau always advances after an epoch, with the metric that ranks the epochs.
        prepare_batch: returns (inputs, labels) of a batch, which are then moved to the device. Inputs that
            are a dict or a tuple become the arguments of the model.
        compute_metrics: returns metrics by name, from all logits and labels of a validation, on the CPU. They
            replace the classification metrics. It is also called once with the first batch before the first
            epoch, to check the names.
        restore_best: loads the weights of the best epoch into the model at the end.
        progress: shows a progress bar; None shows it at a terminal and in a notebook.
        run_id: the run; by default the run that is active in the training thread, or else a new one.
        resume: resumes from the checkpoints in `save_dir`; False deletes them and starts afresh.
        stop_on_nan: raises FloatingPointError if a recorded loss is NaN or infinite, instead of training on.
        upload_timeout: longest time in seconds for logging the best checkpoint at the end. A server that does
            not answer at all is given up after 10 seconds.
        log_params: logs what is known of the training as parameters of the run: ``training.batch_size``,
            ``training.optimizer.lr``, ``training.seed``, ``model.parameters`` and the like.
        config: the configuration of the program, also nested or of OmegaConf. It is logged as `config.yaml`
            and as parameters by dotted names, which go before those of `log_params`.

    Attributes:
        model: the model.
        engine: Ignite's engine that trains.
        evaluator: Ignite's engine that validates; None without `val_loader`.

    Raises:
        ModuleNotFoundError: torch or pytorch-ignite is not installed.
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or does not go with another.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        train_loader: Any,
        val_loader: Any | None,
        optimizer: torch.optim.Optimizer,
        criterion: Callable[[Any, Any], torch.Tensor] | None,
        device: str | torch.device,
        num_epochs: int = 10,
        patience: int | None = None,
        gradient_clip: float | None = None,
        gradient_accumulation_steps: int = 1,
        scheduler: Any | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        use_amp: bool = False,
        amp_dtype: str | torch.dtype = "float16",
        early_stopping_metric: str | None = None,
        early_stopping_mode: str | None = None,
        min_delta: float = 1e-4,
        logging_steps: int = 100,
        log_system_metrics: bool = False,
        system_metrics_interval: int = 10,
        *,
        scheduler_interval: str = "step",
        prepare_batch: Callable[[Any], Any] | None = None,
        compute_metrics: Callable[[torch.Tensor, torch.Tensor], Mapping[str, Any]] | None = None,
        restore_best: bool = True,
        progress: bool | None = None,
        run_id: str | None = None,
        resume: bool = True,
        stop_on_nan: bool = False,
        upload_timeout: float = 600.0,
        log_params: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._arguments = Arguments(**{name: value for name, value in locals().items() if name != "self"})
        needed("torch", extra="train", by="Trainer")
        from mlflow_sysmetrics.training.trainer.loop import Loop

        self._trained = False
        self._loop = Loop(self._arguments)
        self.model = model
        self.engine: Any = self._loop.engine
        self.evaluator: Any = None if self._loop.validation is None else self._loop.validation.engine

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled or copied."""
        raise TypeError(
            "a Trainer cannot be pickled or copied, as its engines belong to this process; pickle its model, "
            "or create a Trainer with the same save_dir, which resumes"
        )

    def train(self, trial: Any | None = None) -> dict[str, Any]:
        """Trains to the end.

        If no run is active in this thread and no `run_id` was passed, it starts a run, or resumes the one of
        the checkpoints, and ends it: FINISHED, FAILED after an exception, KILLED after Ctrl-C.

        Args:
            trial: an Optuna trial; the monitored metric is reported to it after each epoch, and it may be
                pruned.

        Returns:
            ``best_<metric>``, ``best_epoch``, ``total_epochs``, ``total_steps``, ``early_stopped`` and
            ``duration_seconds``, as recorded. The first two are absent if no epoch had a finite value.

        Raises:
            RuntimeError: this trainer has trained already.
            ValueError: `save_dir` holds the training of another run, MLflow refuses a name of
                `compute_metrics`, or the training lacks the metric of `early_stopping_metric`.
            optuna.TrialPruned: the trial was pruned.
        """
        from mlflow_sysmetrics.training.trainer.session import Pruning, Session

        if self._trained:
            raise RuntimeError(
                "this Trainer has trained already; create a new one, which resumes where this one stopped "
                "if it has the same save_dir"
            )
        pruning = Pruning(trial)
        arguments = self._arguments
        with run_if_none_is_active(arguments.run_id, arguments.directory, resume=arguments.resume):
            session = Session(self._loop, arguments, pruning)
            self._trained = True
            summary = session.run()
            pruning.raise_if_pruned()
        return summary

    def validate(self) -> dict[str, float]:
        """Returns the metrics of the model on `val_loader`, with the prefix ``val_``; records nothing.

        Raises:
            ValueError: there is no `val_loader`.
        """
        if self._loop.validation is None:
            raise ValueError("validate() needs a val_loader, but this Trainer has no val_loader")
        return self._loop.validation.run()
