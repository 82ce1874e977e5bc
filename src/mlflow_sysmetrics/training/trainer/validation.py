"""A pass over the validation set, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from mlflow_sysmetrics.training.trainer.batches import Forward, Outcome
from mlflow_sysmetrics.training.trainer.engines import new_engine
from mlflow_sysmetrics.training.trainer.loaders import Passes
from mlflow_sysmetrics.training.values import number

# FOLDED averages: Averages over an epoch, weighted by samples and kept on the device.

# Adding up takes as long for many values as for one; so many are put by, small ones all of them.
_PUT_BY = 64


class Averages:
    """Loss and accuracy of the batches of an epoch; the device is asked once, at the end.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wide = (
            torch.float32 if device.type == "mps" else torch.float64
        )  # Apple's has no double precision
        self._loss = torch.zeros((), dtype=self._wide, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._counted = torch.zeros((), dtype=torch.int64, device=device)
        self._samples = 0
        self._size = 0  # of the batches that are put by
        self._losses: list[torch.Tensor] = []
        self._guesses: list[Guesses] = []

    def add(self, outcome: Outcome, found: Guesses | None = None) -> None:
        """Adds a batch."""
        if outcome.samples != self._size or len(self._losses) >= _PUT_BY:
            self._add_up()
            self._size = outcome.samples
        self._losses.append(outcome.loss.detach())
        self._samples += outcome.samples
        if found is not None:
            self._guesses.append(found)

    def metrics(self) -> dict[str, float]:
        """Returns ``loss``, and ``accuracy`` of a classification; what is undefined is absent."""
        self._add_up()
        found = {"loss": self._loss.item() / self._samples} if self._samples else {}
        if counted := self._counted.item():
            found["accuracy"] = self._right.item() / counted
        return found

    def _add_up(self) -> None:
        if self._losses:
            together = torch.stack([one.reshape(()) for one in self._losses]).to(self._device, self._wide)
            self._loss.add_(together.sum(), alpha=self._size)
        if self._guesses:
            right, counted = Guesses(
                torch.cat([one.predicted.flatten() for one in self._guesses]),
                torch.cat([one.actual.flatten() for one in self._guesses]),
                self._guesses[0].ignored,
                self._guesses[0].classes,
            ).right()
            self._right += right
            self._counted += counted
        self._losses, self._guesses = [], []


# FOLDED classification: Metrics of a classification, with the semantics of scikit-learn, counted on the device.
# FOLDED
# FOLDED  Only what each class has right, has in all and is predicted in all is kept: no logits are collected, and the
# FOLDED  device is asked once, at the end.

_IGNORED = -100  # what torch's losses and Hugging Face's collators leave out
_WHOLE = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})


class Guesses(NamedTuple):
    """What a model took its samples for.

    Attributes:
        predicted: classes.
        actual: classes.
        ignored: the one that does not count.
        classes: how many there are.
    """

    predicted: torch.Tensor
    actual: torch.Tensor
    ignored: int
    classes: int

    def right(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns how many are right, and how many count, on the device."""
        counted = self.actual != self.ignored
        return ((self.predicted == self.actual) & counted).sum(), counted.sum()


def guesses(logits: object, labels: object, criterion: object) -> Guesses | None:
    """Returns what a model took its samples for; None where this is no classification.

    It is one if labels are whole numbers and the logits have one dimension more, that of two classes or more:
    the second, as torch's losses want it, or the last.

    Args:
        logits: of the model.
        labels: of the batch.
        criterion: what computed the loss; its ``ignore_index`` does not count. Where the model did that
            itself, only one label per sample counts as classification: one that predicts the next
            token compares with the label of the next position, and does not say so.
    """
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return None
    if labels.dtype not in _WHOLE:
        return None
    axis = _class_axis(logits.shape, labels.shape)
    if axis is None or (criterion is None and labels.ndim > 1):
        return None
    ignored = getattr(criterion, "ignore_index", _IGNORED)
    return Guesses(
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
    """Counts guesses by class, on the device where they are."""

    def __init__(self) -> None:
        # Per class: right, predicted, actual.
        self._counts: torch.Tensor | None = None

    def add(self, found: Guesses) -> None:
        """Counts the guesses of a batch."""
        if self._counts is None:
            self._counts = torch.zeros((3, found.classes), dtype=torch.int64, device=found.predicted.device)
        ones = (found.actual != found.ignored).to(torch.int64).flatten()
        predicted = found.predicted.flatten()
        # A class that is not counted may be none of these; nothing is added to the one that stands in.
        actual = found.actual.to(torch.int64).flatten().clamp(0, found.classes - 1)
        right = ones * (predicted == actual)
        for row, (places, amounts) in enumerate(((actual, right), (predicted, ones), (actual, ones))):
            self._counts[row].index_add_(0, places, amounts)

    def metrics(self) -> dict[str, float]:
        """Returns accuracy, and averages over the classes that occur; empty where nothing was counted."""
        if self._counts is None:
            return {}
        right, predicted, actual = self._counts.cpu().to(torch.float64)
        total = float(actual.sum())
        if not total:
            return {}
        occurs = (predicted + actual) > 0
        accuracy = float(right.sum()) / total
        return {
            "accuracy": accuracy,
            "f1_macro": _mean_ratio(2 * right, predicted + actual, occurs),
            "f1_micro": accuracy,  # the same, where each sample has one class
            "precision_macro": _mean_ratio(right, predicted, occurs),
            "recall_macro": _mean_ratio(right, actual, occurs),
        }


def _mean_ratio(part: Any, whole: Any, occurs: Any) -> float:
    """Returns the mean over the classes that occur; a class of which there is no whole counts as 0."""
    ratios = torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))
    return float(ratios[occurs].mean())


_PREFIX = "val_"


class Validation:
    """Validates a model.

    Args:
        model: is put into evaluation mode.
        forward: takes batches through it.
        loader: of the batches.
        device: where they are.
        criterion: what computed the loss, if not the model.
        compute_metrics: of the caller; of all logits and labels, on the CPU. None computes those of a
            classification.
        autocast: returns what the forward pass runs in.

    Attributes:
        engine: of Ignite, for handlers of the caller.
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
        self._passes = Passes(loader)
        self._device = device
        self._criterion = criterion
        self._compute = compute_metrics
        self._autocast = autocast

    def run(self) -> dict[str, float]:
        """Returns the metrics of one pass, by name, with ``val_``."""
        self._averages = Averages(self._device)
        self._counts = ClassCounts()
        self._collected: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._model.eval()
        self.engine.state.epoch_length = None  # which may be another one than last time
        self.engine.run(self._passes, max_epochs=1)
        if not self._passes.batches:
            raise ValueError(
                "val_loader gave no batch; an iterator gives its batches only once, a DataLoader always"
            )
        found = {**self._averages.metrics(), **self._counts.metrics(), **self._computed()}
        return {name if name.startswith(_PREFIX) else f"{_PREFIX}{name}": one for name, one in found.items()}

    def _step(self, _engine: object, batch: object) -> torch.Tensor:
        with torch.no_grad(), self._autocast():
            outcome = self._forward(batch)
        self._averages.add(outcome)
        if self._compute is not None:
            self._collected.append(_on_cpu(outcome))
        elif (found := guesses(outcome.logits, outcome.labels, self._criterion)) is not None:
            self._counts.add(found)
        return outcome.loss

    def _computed(self) -> dict[str, float]:
        if self._compute is None:
            return {}
        logits, labels = (torch.cat(parts) for parts in zip(*self._collected, strict=True))
        self._collected = []
        found = self._compute(logits, labels)
        if not isinstance(found, Mapping):
            raise TypeError(f"compute_metrics returned a {type(found).__name__}, and not values by name")
        return {
            str(name): number(f"{name} of compute_metrics", value)
            for name, value in found.items()
            if value is not None
        }


def _on_cpu(outcome: Outcome) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits and labels of a batch in main memory, the logits in full precision."""
    if not isinstance(outcome.logits, torch.Tensor) or not isinstance(outcome.labels, torch.Tensor):
        raise TypeError(
            "compute_metrics needs logits and labels that are tensors; they are "
            f"{type(outcome.logits).__name__} and {type(outcome.labels).__name__}"
        )
    return outcome.logits.detach().float().cpu(), outcome.labels.cpu()
