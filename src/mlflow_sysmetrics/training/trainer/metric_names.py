"""Names of the metrics of an epoch, and which way they improve."""

from __future__ import annotations

CLASSIFICATION = ("accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro")
MIN, MAX = "min", "max"

_WORDS_OF_MIN = frozenset({"loss", "error", "mae", "mse", "rmse", "perplexity"})
_WORDS_OF_MAX = frozenset(
    {"accuracy", "f1", "precision", "recall", "auc", "auroc", "r2", "iou", "dice", "score", "map"}
)


def mode_of(name: str) -> str | None:
    """Returns whether less (`MIN`) or more (`MAX`) of a metric is better; None where the name is silent."""
    words = set(name.lower().split("_"))
    if words & _WORDS_OF_MIN:
        return MIN
    return MAX if words & _WORDS_OF_MAX else None
