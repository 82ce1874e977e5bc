"""Calls to the tracking server: their failures are reported once and without credentials, late results undone."""

from __future__ import annotations

import logging
import threading

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

from mlflow.exceptions import MlflowException

from mlflow_sysmetrics.training.hpo import store_calls
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded, StoreCalls

URI = "http://user:abcdef1234567890@tracking.example/"
PATIENCE = 60


def refused(text: str) -> None:
    raise MlflowException(text)


def test_a_result_is_returned() -> None:
    assert StoreCalls(URI).make(lambda: 3) == 3
    assert StoreCalls(URI).make(lambda: 3, in_this_thread=True) == 3


@pytest.mark.parametrize("in_this_thread", [True, False])
@pytest.mark.parametrize("text", ["Authorization: Bearer abcdef1234567890", f"no answer from {URI}"])
def test_a_failure_is_reported_once_without_credentials(
    caplog: pytest.LogCaptureFixture, text: str, in_this_thread: bool
) -> None:
    calls = StoreCalls(URI)
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"):
        for _ in range(2):
            with pytest.raises(NotRecorded):
                calls.make(lambda: refused(text), in_this_thread=in_this_thread)
    (message,) = caplog.messages
    assert "the tracking server http://tracking.example/ did not accept data of the study" in message
    assert "abcdef1234567890" not in message
    assert not calls.silent


def test_a_result_after_the_timeout_is_undone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_calls, "_TIMEOUT_SECONDS", 0.01)
    answer, undone, results = threading.Event(), threading.Event(), []

    def undo(result: str) -> None:
        results.append(result)
        undone.set()

    calls = StoreCalls(URI)
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"), pytest.raises(NotRecorded):
        calls.make(lambda: answer.wait(PATIENCE) and "late", undo=undo)
    assert "(no answer within 0.01 s)" in caplog.text
    assert calls.silent
    answer.set()
    assert undone.wait(PATIENCE)
    assert results == ["late"]
    calls.make(lambda: None, in_this_thread=True)
    assert not calls.silent


def test_the_exit_of_the_program_waits_for_an_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "_TIMEOUT_SECONDS", 0.01)
    answer, begun, go_on, undone = (threading.Event() for _ in range(4))

    def undo(_: object) -> None:
        begun.set()
        go_on.wait(PATIENCE)
        undone.set()

    with pytest.raises(NotRecorded):
        StoreCalls(URI).make(lambda: answer.wait(PATIENCE), undo=undo)
    answer.set()
    assert begun.wait(PATIENCE)
    monkeypatch.setattr(store_calls, "_EXIT_SECONDS", 0.01)
    store_calls._wait_for_undos()
    assert not undone.is_set()  # bounded: an undo may hang, too
    monkeypatch.setattr(store_calls, "_EXIT_SECONDS", float(PATIENCE))
    go_on.set()
    store_calls._wait_for_undos()
    assert undone.is_set()
