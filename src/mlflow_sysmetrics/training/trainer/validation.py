"""The metrics of an epoch, and the validation that computes some of them.

Averages and classification metrics are counted on the device, which is read once, at the end of the epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name
from mlflow_sysmetrics.training.trainer.batches import Forward, Outcome
from mlflow_sysmetrics.training.trainer.engines import Passes, new_engine
from mlflow_sysmetrics.training.values import number

_PREFIX = "val_"
_BUFFERED_BATCHES = 64  # adding up 64 values takes as long as adding one; each of them is small
_IGNORED = -100  # the default ignore_index of torch's losses and Hugging Face's collators
_INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})


class Validation:
    """Validates a model.

    Args:
        model: is put into evaluation mode.
        forward: runs batches through the model.
        loader: yields the batches.
        device: device of the model.
        criterion: computes the loss; None if the model does.
        compute_metrics: the user's function of all logits and labels, on the CPU; None computes the metrics
            of a classification.
        autocast: returns the context for the forward pass.

    Attributes:
        engine: Ignite's engine, for handlers of the user.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        forward: Forward,
        loader: Any,
        *,
        device: torch.device,
        criterion: object,
        compute_metrics: Callable[[Any, Any], Mapping[str, Any]] | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.engine = new_engine(self._step)
        self._model = model
        self._forward = forward
        self._loader = loader
        self._passes = Passes(loader)
        self._device = device
        self._criterion = criterion
        self._compute = compute_metrics
        self._autocast = autocast

    def run(self) -> dict[str, float]:
        """Returns the metrics of one pass by name, with the prefix ``val_``."""
        self._averages = Averages(self._device)
        self._counts = ClassCounts()
        self._collected: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._model.eval()
        self.engine.state.epoch_length = None  # may differ from the pass before
        self.engine.run(self._passes, max_epochs=1)
        if not self._passes.batches:
            raise ValueError(
                "val_loader yielded no batches; "
                "an iterator yields its batches only once, a DataLoader every time"
            )
        metrics = {**self._averages.metrics(), **self._counts.metrics(), **self._computed()}
        return {_prefixed(name): value for name, value in metrics.items()}

    def check_names(self) -> None:
        """Calls `compute_metrics` with the first batch and checks the names that it returns.

        Otherwise a name that MLflow refuses would be found after the first epoch only. Any other problem is
        left to the first validation: one batch may be too few for a metric. An iterator, which yields the
        batch only once, is left alone.

        Raises:
            TypeError: `compute_metrics` does not return values by name.
            ValueError: MLflow refuses a name.
        """
        if self._compute is None or hasattr(self._loader, "__next__"):
            return
        self._model.eval()
        try:
            with warnings.catch_warnings(), torch.no_grad(), self._autocast():
                warnings.simplefilter("ignore")
                computed = self._compute(*_on_cpu(self._forward(next(iter(self._loader)))))
        except Exception as error:  # noqa: BLE001 - the user's functions may raise anything, and will do so later
            reraise_interruption(error)
            return
        for name in _by_name(computed):
            check_metric_name(f"epoch/{_prefixed(name)}", name=name)

    def _step(self, _engine: object, batch: object) -> torch.Tensor:
        with torch.no_grad(), self._autocast():
            outcome = self._forward(batch)
        self._averages.add(outcome)
        if self._compute is not None:
            self._collected.append(_on_cpu(outcome))
        elif (found := predictions(outcome.logits, outcome.labels, self._criterion)) is not None:
            self._counts.add(found)
        return outcome.loss

    def _computed(self) -> dict[str, float]:
        if self._compute is None:
            return {}
        logits, labels = (torch.cat(parts) for parts in zip(*self._collected, strict=True))
        self._collected = []
        computed = _by_name(self._compute(logits, labels))
        return {
            name: number(f"{name} of compute_metrics", value)
            for name, value in computed.items()
            if value is not None
        }


class Averages:
    """Mean loss and accuracy over the samples of an epoch.

    Args:
        device: device of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Apple's GPUs lack double precision.
        self._wide = torch.float32 if device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=self._wide, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._counted = torch.zeros((), dtype=torch.int64, device=device)
        self._samples = 0
        self._size = 0  # samples per buffered batch, the same for all of them
        self._losses: list[torch.Tensor] = []
        self._predictions: list[Predictions] = []

    def add(self, outcome: Outcome, found: Predictions | None = None) -> None:
        """Adds a batch."""
        if outcome.samples != self._size or len(self._losses) >= _BUFFERED_BATCHES:
            self._add_up()
            self._size = outcome.samples
        self._losses.append(outcome.loss.detach())
        self._samples += outcome.samples
        if found is not None:
            self._predictions.append(found)

    def metrics(self) -> dict[str, float]:
        """Returns ``loss``, and ``accuracy`` of a classification; an undefined mean is absent."""
        self._add_up()
        found = {"loss": self._loss.item() / self._samples} if self._samples else {}
        if counted := self._counted.item():
            found["accuracy"] = self._correct.item() / counted
        return found

    def _add_up(self) -> None:
        if self._losses:
            together = torch.stack([one.reshape(()) for one in self._losses]).to(self._device, self._wide)
            self._loss.add_(together.sum(), alpha=self._size)
        if self._predictions:
            correct, counted = Predictions(
                torch.cat([one.predicted.flatten() for one in self._predictions]),
                torch.cat([one.actual.flatten() for one in self._predictions]),
                self._predictions[0].ignored,
                self._predictions[0].classes,
            ).correct()
            self._correct += correct
            self._counted += counted
        self._losses, self._predictions = [], []


class Predictions(NamedTuple):
    """The predicted and the actual classes of a batch.

    Attributes:
        predicted: predicted classes.
        actual: actual classes.
        ignored: the actual class that does not count.
        classes: number of classes.
    """

    predicted: torch.Tensor
    actual: torch.Tensor
    ignored: int
    classes: int

    def correct(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the numbers of correct and of counted samples, on the device."""
        counted = self.actual != self.ignored
        return ((self.predicted == self.actual) & counted).sum(), counted.sum()


def predictions(logits: object, labels: object, criterion: object) -> Predictions | None:
    """Returns the predictions of a batch, or None if this is not a classification.

    In a classification, labels are integers, and logits have one more dimension, of at least two classes: the
    second, as torch's losses require, or the last.

    Args:
        logits: output of the model.
        labels: labels of the batch.
        criterion: computes the loss; labels equal to its ``ignore_index`` do not count. None if the model
            does: then only one label per sample is a classification. A model that predicts the next token
            compares with the label of the next position, which cannot be seen from here.
    """
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return None
    if labels.dtype not in _INTEGERS:
        return None
    axis = _class_axis(logits.shape, labels.shape)
    if axis is None or (criterion is None and labels.ndim > 1):
        return None
    ignored = getattr(criterion, "ignore_index", _IGNORED)
    return Predictions(
        logits.detach().argmax(dim=axis),
        labels,
        ignored if isinstance(ignored, int) else _IGNORED,
        logits.shape[axis],
    )


def _class_axis(logits: torch.Size, labels: torch.Size) -> int | None:
    if not labels or len(logits) != len(labels) + 1:
        return None
    for axis in (1, len(labels)):
        if logits[axis] > 1 and logits[:axis] + logits[axis + 1 :] == labels:
            return axis
    return None


class ClassCounts:
    """Counts predictions per class; the metrics equal scikit-learn's with ``zero_division=0``.

    Per class it keeps only how often it was correct, predicted and actual; no logits are collected.
    """

    def __init__(self) -> None:
        self._counts: torch.Tensor | None = None  # rows: correct, predicted, actual

    def add(self, found: Predictions) -> None:
        """Counts the predictions of a batch."""
        if self._counts is None:
            self._counts = torch.zeros((3, found.classes), dtype=torch.int64, device=found.predicted.device)
        ones = (found.actual != found.ignored).to(torch.int64).flatten()
        predicted = found.predicted.flatten()
        # An ignored label may be out of range; clamped, it counts 0 in another class.
        actual = found.actual.to(torch.int64).flatten().clamp(0, found.classes - 1)
        correct = ones * (predicted == actual)
        for row, (classes, amounts) in enumerate(((actual, correct), (predicted, ones), (actual, ones))):
            self._counts[row].index_add_(0, classes, amounts)

    def metrics(self) -> dict[str, float]:
        """Returns accuracy, and averages over the classes that occur; empty if nothing was counted."""
        if self._counts is None:
            return {}
        correct, predicted, actual = self._counts.cpu().to(torch.float64)
        total = float(actual.sum())
        if not total:
            return {}
        occurs = (predicted + actual) > 0
        accuracy = float(correct.sum()) / total
        return {
            "accuracy": accuracy,
            "f1_macro": _mean_ratio(2 * correct, predicted + actual, occurs),
            "f1_micro": accuracy,  # equal if each sample has exactly one class
            "precision_macro": _mean_ratio(correct, predicted, occurs),
            "recall_macro": _mean_ratio(correct, actual, occurs),
        }


def _mean_ratio(part: Any, whole: Any, occurs: Any) -> float:
    """Returns the mean ratio over the classes that occur; a ratio with denominator 0 counts as 0."""
    ratios = torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))
    return float(ratios[occurs].mean())


def _prefixed(name: str) -> str:
    return name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"


def _by_name(found: object) -> dict[str, Any]:
    """Returns what `compute_metrics` returned, by name."""
    if not isinstance(found, Mapping):
        raise TypeError(f"compute_metrics must return values by name, got a {type(found).__name__}")
    return {str(name): value for name, value in found.items()}


def _on_cpu(outcome: Outcome) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits, in single precision, and labels of a batch in main memory."""
    if not isinstance(outcome.logits, torch.Tensor) or not isinstance(outcome.labels, torch.Tensor):
        raise TypeError(
            "compute_metrics needs logits and labels that are tensors, got a "
            f"{type(outcome.logits).__name__} and a {type(outcome.labels).__name__}"
        )
    return outcome.logits.detach().float().cpu(), outcome.labels.cpu()
