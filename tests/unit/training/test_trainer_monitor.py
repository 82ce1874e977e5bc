"""Which epoch is the best, and when it is time to stop."""

from __future__ import annotations

import math

import pytest

from mlflow_sysmetrics.training.best_epoch import Monitor, mode_of


def followed(monitor: Monitor, *values: float) -> list[bool]:
    return [monitor.update(epoch, {"val_loss": value}) for epoch, value in enumerate(values, start=1)]


def test_less_is_better_of_a_loss_and_more_of_other_metrics() -> None:
    monitor = Monitor("val_loss", None, None, 0.0)
    assert followed(monitor, 3, 2, 2.5, 1) == [True, True, False, True]
    assert (monitor.best, monitor.best_epoch) == (1, 4)
    assert followed(Monitor("val_loss", "max", None, 0.0), 3, 2, 4) == [True, False, True]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_mae", "min"),
        ("val_f1_macro", "max"),
        ("train_accuracy", "max"),
        ("val_auroc", "max"),
        ("val_temperature", None),
    ],
)
def test_the_name_tells_which_is_better(name: str, mode: str | None) -> None:
    assert mode_of(name) == mode


def test_it_is_time_to_stop_after_so_many_epochs_without_improvement() -> None:
    monitor = Monitor("val_loss", None, 2, 0.0)
    followed(monitor, 3, 4)
    assert not monitor.exhausted
    monitor.update(3, {"val_loss": 2})
    monitor.update(4, {"val_loss": 3})
    assert not monitor.exhausted
    monitor.update(5, {"val_loss": 2})
    assert monitor.exhausted


def test_small_improvements_add_up_and_are_the_best_all_the_same() -> None:
    """Each is measured from the last that counted, so that slow progress is progress."""
    monitor = Monitor("val_loss", None, 2, 0.5)
    assert followed(monitor, 3, 2.7, 2.4, 2.1) == [True] * 4
    assert not monitor.exhausted
    followed(monitor, 2.09, 2.08)
    assert monitor.exhausted


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(value: float) -> None:
    monitor = Monitor("val_loss", None, 2, 0.0)
    assert followed(monitor, value, 1, value) == [False, True, False]
    assert (monitor.best, monitor.best_epoch) == (1, 2)
    monitor.update(4, {"val_loss": value})
    assert monitor.exhausted


def test_an_epoch_without_the_metric_is_no_improvement() -> None:
    monitor = Monitor("val_loss", None, 1, 0.0)
    followed(monitor, 1)
    assert not monitor.update(2, {"train_loss": 0})
    assert monitor.exhausted


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"train_loss": 1, "val_loss": 1, "val_f1_macro": 0}, "val_f1_macro"),
        ({"train_loss": 1, "val_loss": 1}, "val_loss"),
        ({"train_loss": 1}, "train_loss"),
    ],
)
def test_what_is_followed_by_default(metrics: dict[str, float], name: str) -> None:
    monitor = Monitor(None, None, None, 0.0)
    monitor.update(1, metrics)
    assert (monitor.name, monitor.best) == (name, metrics[name])


def test_a_metric_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(
        ValueError, match="'val_auroc' is none of what this training has: train_loss, val_loss"
    ):
        Monitor("val_auroc", None, None, 0.0).update(1, {"val_loss": 1, "train_loss": 2})


def test_it_goes_on_from_a_checkpoint() -> None:
    monitor, again = Monitor(None, None, 3, 0.0), Monitor(None, None, 3, 0.0)
    followed(monitor, 3, 4, 5)
    again.load_state_dict(monitor.state_dict())
    assert not again.update(4, {"val_loss": 6})
    assert again.exhausted
    assert (again.name, again.best, again.best_epoch) == ("val_loss", 3, 1)


def test_another_metric_begins_anew() -> None:
    monitor, other = Monitor("val_loss", None, 3, 0.0), Monitor("train_loss", None, 3, 0.0)
    followed(monitor, 3)
    other.load_state_dict(monitor.state_dict())
    assert other.update(2, {"train_loss": 9})
