"""What MLflow logs about our choices is kept back, and nothing else."""

from __future__ import annotations

import logging
import threading

import pytest

from mlflow_sysmetrics.training.registry.quiet import without_noise

NOISE = "Saving pytorch model by Pickle or CloudPickle format requires exercising caution"


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    caplog.set_level(logging.INFO, "mlflow.pytorch")


def test_our_own_choice_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        logging.getLogger("mlflow.pytorch").warning(NOISE)
    assert caplog.messages == []


def test_other_lines_of_the_same_logger_pass(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        logging.getLogger("mlflow.pytorch").warning("the disk is full")
    assert caplog.messages == ["the disk is full"]


def test_the_same_line_of_another_thread_passes(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        other = threading.Thread(target=logging.getLogger("mlflow.pytorch").warning, args=(NOISE,))
        other.start()
        other.join()
    assert caplog.messages == [NOISE]


def test_afterwards_all_is_as_before(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        pass
    logging.getLogger("mlflow.pytorch").warning(NOISE)
    assert caplog.messages == [NOISE]
