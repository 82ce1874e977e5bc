"""Classification metrics equal scikit-learn's, although they are counted batch by batch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
sklearn_metrics = pytest.importorskip("sklearn.metrics")

from mlflow_sysmetrics.training.trainer.batches import Outcome
from mlflow_sysmetrics.training.trainer.validation import (
    Averages,
    ClassCounts,
    predictions,
)

pytestmark = pytest.mark.heavy

CRITERION = torch.nn.CrossEntropyLoss()


def of_sklearn(actual: Any, predicted: Any) -> dict[str, float]:
    found = {"accuracy": sklearn_metrics.accuracy_score(actual, predicted)}
    for name in ("f1", "precision", "recall"):
        score = getattr(sklearn_metrics, f"{name}_score")
        found[f"{name}_macro"] = score(actual, predicted, average="macro", zero_division=0)
    found["f1_micro"] = sklearn_metrics.f1_score(actual, predicted, average="micro", zero_division=0)
    return found


def counted(*batches: tuple[Any, Any], criterion: Any = CRITERION) -> dict[str, float]:
    counts = ClassCounts()
    for logits, labels in batches:
        found = predictions(logits, labels, criterion)
        assert found is not None
        counts.add(found)
    return counts.metrics()


@pytest.mark.parametrize("seed", range(20))
def test_they_equal_those_of_scikit_learn(seed: int) -> None:
    """With few samples of many classes, some never occur, or among the predictions only."""
    generator = torch.Generator().manual_seed(seed)
    classes = 2 + seed % 6
    logits = torch.randn(9, classes, generator=generator)
    labels = torch.randint(classes, (9,), generator=generator)
    found = counted((logits[:4], labels[:4]), (logits[4:], labels[4:]))
    assert found == pytest.approx(of_sklearn(labels, logits.argmax(dim=1)))


def test_a_class_that_never_occurs_does_not_count() -> None:
    logits = torch.eye(3)[[0, 1, 1]]
    assert counted((logits, torch.tensor([0, 1, 1])))["f1_macro"] == 1


def test_ignored_labels_do_not_count() -> None:
    logits = torch.eye(3)[[0, 1, 2, 2]]
    found = counted((logits, torch.tensor([0, 1, -100, 1])))
    assert found == pytest.approx(of_sklearn([0, 1, 1], [0, 1, 2]))
    other = torch.nn.CrossEntropyLoss(ignore_index=0)
    assert counted((logits, torch.tensor([0, 1, 0, 1])), criterion=other) == pytest.approx(
        of_sklearn([1, 1], [1, 2])
    )


def test_undefined_metrics_are_absent() -> None:
    assert counted((torch.eye(2), torch.tensor([-100, -100]))) == {}
    assert ClassCounts().metrics() == {}


def test_each_pixel_is_a_sample_if_classes_are_the_second_dimension() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    expected = of_sklearn(labels.flatten(), logits.argmax(dim=1).flatten())
    assert counted((logits, labels)) == pytest.approx(expected)


def test_each_token_is_a_sample_if_classes_are_the_last_dimension() -> None:
    logits, labels = torch.randn(2, 7, 3), torch.randint(3, (2, 7))
    expected = of_sklearn(labels.flatten(), logits.argmax(dim=2).flatten())
    assert counted((logits, labels), criterion=lambda *_: None) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "labels", "criterion"),
    [
        (torch.randn(4, 1), torch.randn(4, 1), CRITERION),  # regression
        (torch.randn(4), torch.randn(4), CRITERION),
        (torch.randn(4, 3), torch.rand(4, 3), CRITERION),  # probabilities, or several labels each
        (torch.randn(4, 1), torch.ones(4, dtype=torch.long), CRITERION),  # a single class
        (torch.randn(4, 3), torch.ones(4, dtype=torch.bool), CRITERION),
        (torch.randn(2, 7, 3), torch.ones(2, 7, dtype=torch.long), None),  # perhaps the next tokens
        ((torch.randn(4, 3),), torch.ones(4, dtype=torch.long), CRITERION),
        (torch.randn(4, 3), None, CRITERION),
    ],
)
def test_other_tasks_are_not_mistaken_for_a_classification(logits: Any, labels: Any, criterion: Any) -> None:
    assert predictions(logits, labels, criterion) is None


def test_losses_are_weighted_by_samples_however_many_are_buffered() -> None:
    averages = Averages(torch.device("cpu"))
    losses = torch.rand(300).tolist()
    sizes = [8] * 200 + [3] * 50 + list(range(1, 51))
    for loss, size in zip(losses, sizes, strict=True):
        averages.add(Outcome(torch.tensor(loss), None, None, size))
    expected = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    assert averages.metrics() == pytest.approx({"loss": expected}, abs=1e-9)


def test_the_loss_of_no_batch_is_absent() -> None:
    assert Averages(torch.device("cpu")).metrics() == {}
