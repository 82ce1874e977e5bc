"""What MLflow logs about choices of this package is suppressed, and nothing else."""

from __future__ import annotations

import logging
import threading

import pytest

from mlflow_sysmetrics.training.registry.quiet import without_noise

NOISE = "Saving pytorch model by Pickle or CloudPickle format requires exercising caution"


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    caplog.set_level(logging.INFO, "mlflow.pytorch")


def test_a_warning_about_our_own_choice_is_suppressed(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        logging.getLogger("mlflow.pytorch").warning(NOISE)
    assert caplog.messages == []


def test_other_lines_of_the_same_logger_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        logging.getLogger("mlflow.pytorch").warning("the disk is full")
    assert caplog.messages == ["the disk is full"]


def test_the_same_line_from_another_thread_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        other = threading.Thread(target=logging.getLogger("mlflow.pytorch").warning, args=(NOISE,))
        other.start()
        other.join()
    assert caplog.messages == [NOISE]


def test_nothing_is_suppressed_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    with without_noise():
        pass
    logging.getLogger("mlflow.pytorch").warning(NOISE)
    assert caplog.messages == [NOISE]
