"""The best epoch and early stopping, as `Trainer` and the adapters share them."""

from __future__ import annotations

import math

import pytest

from mlflow_sysmetrics.training.best_epoch import BestEpoch, MonitoredMetric, mode_of, monitored_metric

LOSS = MonitoredMetric("val_loss", "min")


def followed(best: BestEpoch, *values: float) -> list[bool]:
    return [best.update(epoch, {best.name: value}) for epoch, value in enumerate(values, start=1)]


def test_a_loss_is_minimised_and_other_metrics_are_maximised_on_request() -> None:
    best = BestEpoch(LOSS)
    assert followed(best, 3, 2, 2.5, 1) == [True, True, False, True]
    assert (best.value, best.epoch) == (1, 4)
    assert followed(BestEpoch(MonitoredMetric("val_loss", "max")), 3, 2, 4) == [True, False, True]


def test_of_equal_values_the_first_epoch_is_the_best() -> None:
    best = BestEpoch(MonitoredMetric("val_f1", "max"))
    assert followed(best, math.nan, 0.5, 0.75, 0.75, 0.25) == [False, True, True, False, False]
    assert best.summary() == {"best_val_f1": 0.75, "best_epoch": 3}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_logloss", "min"),
        ("val_mae", "min"),
        ("val_mean_squared_error", "min"),
        ("val_f1_macro", "max"),
        ("val_f1/macro", "max"),
        ("train_accuracy", "max"),
        ("val_acc", "max"),
        ("val_AUC", "max"),
        ("val_auroc", "max"),
        ("val_temperature", None),
    ],
)
def test_the_mode_is_inferred_from_the_name(name: str, mode: str | None) -> None:
    assert mode_of(name) == mode


def test_a_metric_needs_a_mode_only_if_none_can_be_inferred() -> None:
    assert monitored_metric("val_loss", None) == LOSS
    assert monitored_metric("val_f1", None) == MonitoredMetric("val_f1", "max")
    assert monitored_metric("val_f1", "min") == MonitoredMetric("val_f1", "min")
    assert monitored_metric("val_temperature", "min") == MonitoredMetric("val_temperature", "min")
    assert monitored_metric(None, None) is None


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("val_t", None, "cannot infer from the name whether to minimise or maximise 'val_t'; pass mode="),
        ("val_f1", "most", "mode must be 'min' or 'max', got 'most'"),
        (None, "max", "mode='max' needs monitor="),
        ("val_f1@5", None, "MLflow does not accept the metric name 'val_f1@5'"),
        ("val_" + "f" * 236, "max", "at most 250 characters"),  # final/best_<name> has 251
    ],
)
def test_an_invalid_metric_or_mode_is_an_error(name: str | None, mode: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        monitored_metric(name, mode)


def test_training_should_stop_after_the_patience_without_improvement() -> None:
    best = BestEpoch(LOSS, patience=2)
    followed(best, 3, 4)
    assert not best.should_stop
    best.update(3, {"val_loss": 2})
    best.update(4, {"val_loss": 3})
    assert not best.should_stop
    best.update(5, {"val_loss": 2})
    assert best.should_stop


def test_small_improvements_add_up_and_still_make_the_best_epoch() -> None:
    """Each is measured from the last one that counted, so slow progress is progress."""
    best = BestEpoch(LOSS, patience=2, min_delta=0.5)
    assert followed(best, 3, 2.7, 2.4, 2.1) == [True] * 4
    assert not best.should_stop
    followed(best, 2.09, 2.08)
    assert best.should_stop


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_and_infinities_are_never_the_best(value: float, mode: str) -> None:
    best = BestEpoch(MonitoredMetric("val_loss", mode), patience=2)
    assert followed(best, value, 1, value) == [False, True, False]
    assert (best.value, best.epoch) == (1, 2)
    best.update(4, {"val_loss": value})
    assert best.should_stop


def test_an_epoch_without_the_metric_is_not_an_improvement() -> None:
    best = BestEpoch(LOSS, patience=1)
    followed(best, 1)
    assert not best.update(2, {"train_loss": 0})
    assert best.should_stop


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"train_loss": 1, "val_loss": 1, "val_f1_macro": 0}, "val_f1_macro"),
        ({"train_loss": 1, "val_loss": 1}, "val_loss"),
        ({"train_loss": 1}, "train_loss"),
    ],
)
def test_the_default_metric_is_the_first_there_is(metrics: dict[str, float], name: str) -> None:
    best = BestEpoch(None)
    best.update(1, metrics)
    assert (best.name, best.value) == (name, metrics[name])


def test_a_default_metric_that_appears_later_takes_over() -> None:
    best = BestEpoch(None, patience=2)
    best.update(1, {"train_loss": 1.0})
    assert best.summary() == {"best_train_loss": 1.0, "best_epoch": 1}
    best.update(2, {"train_loss": 3.0})
    assert best.update(3, {"train_loss": 3.0, "val_loss": 2.0})
    assert best.summary() == {"best_val_loss": 2.0, "best_epoch": 3}
    assert not best.update(4, {"train_loss": 0.5})
    assert not best.should_stop


def test_a_metric_that_never_appears_has_no_best_epoch() -> None:
    best = BestEpoch(MonitoredMetric("val_f1", "max"))
    best.update(1, {"val_loss": 1.0})
    assert best.summary() == {}


def test_a_missing_metric_is_an_error_that_lists_the_available_ones() -> None:
    best = BestEpoch(MonitoredMetric("val_auroc", "max"))
    with pytest.raises(
        ValueError,
        match="must be a metric of this training, got 'val_auroc'; its metrics: train_loss, val_loss",
    ):
        best.check_available({"val_loss": 1, "train_loss": 2})


def test_a_metric_may_be_missing_after_the_first_epoch() -> None:
    best = BestEpoch(LOSS)
    followed(best, 1)
    best.check_available({"train_loss": 2})


def test_an_epoch_without_samples_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="no samples"):
        BestEpoch(None).check_available({})


def test_the_state_is_restored_from_a_checkpoint() -> None:
    best, again = BestEpoch(None, patience=3), BestEpoch(None, patience=3)
    for epoch, value in enumerate((3, 4, 5), start=1):
        best.update(epoch, {"val_loss": value})
    again.load_state_dict(best.state_dict())
    assert not again.update(4, {"val_loss": 6})
    assert again.should_stop
    assert (again.name, again.value, again.epoch) == ("val_loss", 3, 1)


@pytest.mark.parametrize("other", [MonitoredMetric("train_loss", "min"), MonitoredMetric("val_loss", "max")])
def test_another_metric_or_mode_starts_afresh(other: MonitoredMetric) -> None:
    best, another = BestEpoch(LOSS, patience=3), BestEpoch(other, patience=3)
    followed(best, 3)
    another.load_state_dict(best.state_dict())
    assert another.update(2, {other.name: 2})
