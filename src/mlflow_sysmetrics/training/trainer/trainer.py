"""The trainer: a training loop that records, checkpoints, stops early and resumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.trainer.arguments import Arguments

if TYPE_CHECKING:
    import torch


class Trainer:
    """Trains a model on a run: steps, epochs and the summary are recorded, and the best weights are kept.

    ::

        with mlflow.start_run():
            Trainer(model, train_loader, val_loader, optimizer, criterion, "cuda", patience=3).train()

    It is built on the engines of pytorch-ignite: what is to happen besides is a handler of `engine` or
    `evaluator`, and a number that one puts into ``engine.state.metrics`` at the end of an epoch is recorded
    with the others.

    A batch is a dict, whose labels are taken out and whose other keys are matched to the parameters of
    `forward`, or a tuple that ends with the labels. A step is one batch. The tracking server may be down:
    nothing in the loop waits for it.

    Args:
        model: is moved to the device. Of Hugging Face's outputs ``logits`` is taken.
        train_loader: gives the batches of an epoch whenever it is iterated.
        val_loader: as above, for validation after each epoch; None does without.
        optimizer: of the model's parameters.
        criterion: of logits and labels, returns the loss; None takes the ``loss`` that the model returns.
        device: as of torch.
        num_epochs: at most, those before a resume included.
        patience: epochs without improvement after which training stops; None never stops early.
        gradient_clip: largest norm of the gradients of a step.
        gradient_accumulation_steps: batches per optimizer step. An epoch's last step has those that are left.
        scheduler: of the learning rate.
        save_dir: where checkpoints are kept, and from where a training goes on; None can not be resumed.
        use_amp: computes in mixed precision.
        amp_dtype: "float16" or "bfloat16"; a CPU has bfloat16 only.
        early_stopping_metric: which epoch is the best, such as "val_loss"; by default the first there is of
            val_f1_macro, val_loss, train_loss.
        early_stopping_mode: "min" or "max"; by default what the name tells.
        min_delta: an improvement that is no larger does not count for `patience`.
        logging_steps: the first step of a training is recorded, and each whose number is a multiple of this.
        log_system_metrics: records what the machine does, on the same axis.
        system_metrics_interval: steps between two of these.
        scheduler_interval: "step" moves the scheduler on after each optimizer step, "epoch" after each epoch.
            ReduceLROnPlateau is moved on after each epoch, with the metric of `early_stopping_metric`.
        prepare_batch: returns (inputs, labels) of a batch; inputs that are a dict or a tuple become the
            arguments of the model. They are moved to the device afterwards.
        compute_metrics: of all logits and labels of a validation, on the CPU, returns values by name, which
            are recorded instead of those of a classification.
        restore_best: puts the weights of the best epoch back into the model at the end.
        progress: shows a bar; None does so on a terminal and in a notebook.
        run_id: the run; by default the one that is active in the thread that trains.
        resume: goes on from what is in `save_dir`; False begins anew there.
        stop_on_nan: raises FloatingPointError when a recorded loss is not finite, instead of recording it and
            going on.
        upload_timeout: longest time in seconds to log the best checkpoint at the end, from a server that
            answers. One that does not is given up after 10 seconds.

    Attributes:
        model: what is trained.
        engine: of Ignite; trains.
        evaluator: of Ignite; validates. None without `val_loader`.

    Raises:
        ModuleNotFoundError: torch or pytorch-ignite is not installed.
        TypeError: an argument is not of the kind that it should be.
        ValueError: an argument is out of range, or does not go with another.
    """

    def __init__(  # noqa: PLR0917 - the signature that users know
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
        use_amp: bool = False,  # noqa: FBT001, FBT002 - as above: the signature that users know
        amp_dtype: str | torch.dtype = "float16",
        early_stopping_metric: str | None = None,
        early_stopping_mode: str | None = None,
        min_delta: float = 1e-4,
        logging_steps: int = 100,
        log_system_metrics: bool = False,  # noqa: FBT001, FBT002
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
    ) -> None:
        asked = {name: value for name, value in locals().items() if name != "self"}
        self._arguments = Arguments(**asked)
        needed("torch", extra="train", by="Trainer")
        from mlflow_sysmetrics.training.trainer.loop import Loop

        self._trained = False
        self._loop = Loop(self._arguments)
        self.model = model
        self.engine: Any = self._loop.engine
        self.evaluator: Any = None if self._loop.validation is None else self._loop.validation.engine

    def train(self, trial: Any | None = None) -> dict[str, Any]:
        """Trains to the end.

        Args:
            trial: of Optuna; is told the monitored metric after each epoch, and may end the training.

        Returns:
            ``best_<metric>``, ``best_epoch``, ``total_epochs``, ``total_steps``, ``early_stopped`` and
            ``duration_seconds``, as they are recorded. The first two are absent if no epoch had the metric.

        Raises:
            NoActiveRunError: there is no run to record to; nothing has been trained.
            RuntimeError: this trainer has trained already.
            ValueError: `save_dir` holds the training of another run, or the metric is none that there is.
            optuna.TrialPruned: the trial was ended.
        """
        from mlflow_sysmetrics.training.trainer.session import (
            Pruning,
            Session,
        )

        if self._trained:
            raise RuntimeError(
                "this Trainer has trained already; make a new one, which with the same save_dir goes on "
                "where this one has stopped"
            )
        pruning = Pruning(trial)
        session = Session(self._loop, self._arguments, pruning)
        self._trained = True
        summary = session.run()
        pruning.raise_if_pruned()
        return summary

    def validate(self) -> dict[str, float]:
        """Returns the metrics of the model on `val_loader`, with ``val_``; records nothing.

        Raises:
            ValueError: there is no `val_loader`.
        """
        if self._loop.validation is None:
            raise ValueError("there is no val_loader to validate with")
        return self._loop.validation.run()
