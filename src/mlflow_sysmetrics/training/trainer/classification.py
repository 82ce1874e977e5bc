"""Metrics of a classification, with the semantics of scikit-learn, counted on the device.

Only what each class has right, has in all and is predicted in all is kept: no logits are collected, and the
device is asked once, at the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

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


def _mean_ratio(part: Any, whole: Any, occurs: Any) -> float:  # noqa: ANN401 - tensors
    """Returns the mean over the classes that occur; a class of which there is no whole counts as 0."""
    ratios = torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))
    return float(ratios[occurs].mean())
