"""Calls to the tracking server: failures are reported once, without credentials; creations are never repeated late."""

from __future__ import annotations

import logging
import threading

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

from mlflow.exceptions import MlflowException

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.training.hpo import store_calls
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded, StoreCalls

URI = "http://user:abcdef1234567890@tracking.example/"
PATIENCE = 60


def refused(text: str) -> None:
    raise MlflowException(text)


def test_a_result_is_returned() -> None:
    assert StoreCalls(URI).make(lambda: 3) == 3


@pytest.mark.parametrize("text", ["Authorization: Bearer abcdef1234567890", f"no answer from {URI}"])
def test_a_failure_is_reported_once_without_credentials(caplog: pytest.LogCaptureFixture, text: str) -> None:
    calls = StoreCalls(URI)
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"):
        for _ in range(2):
            with pytest.raises(NotRecorded):
                calls.make(lambda: refused(text))
    (message,) = caplog.messages
    assert "the tracking server http://tracking.example/ did not accept data of the study" in message
    assert "abcdef1234567890" not in message
    assert not calls.silent


def test_a_call_that_times_out_is_reported_and_the_next_answer_ends_the_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_calls, "_TIMEOUT_SECONDS", 0.01)
    answer = threading.Event()
    calls = StoreCalls(URI)
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"), pytest.raises(NotRecorded):
        calls.make(lambda: answer.wait(PATIENCE))
    assert "(no answer within 0.01 s)" in caplog.text
    assert calls.silent
    answer.set()
    calls.make(lambda: None)
    assert not calls.silent


class Server:
    """Creates objects; the answers to the first creations are lost.

    Attributes:
        created: what it has.
        attempts: how many creations were asked for.
    """

    def __init__(self, *faults: Fault, commits: bool = False) -> None:
        self._faults = list(faults)
        self._commits = commits
        self.created: list[str] = []
        self.attempts = 0

    def create(self, seconds: float) -> str:
        assert seconds <= store_calls._TIMEOUT_SECONDS
        self.attempts += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault is None or self._commits:
            self.created.append(f"run {self.attempts}")
        if fault is not None:
            raise fault
        return self.created[-1]

    def found(self) -> str | None:
        return self.created[0] if self.created else None


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "_FIRST_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("no_pauses")
def test_a_creation_is_repeated_while_the_server_is_down() -> None:
    server = Server(Fault("no", Cause.DOWN), Fault("no", Cause.DOWN))
    calls = StoreCalls(URI)
    assert calls.create(server.create, server.found) == "run 3"
    assert server.created == ["run 3"]
    assert not calls.silent


@pytest.mark.usefixtures("no_pauses")
def test_a_creation_whose_answer_was_lost_is_found_and_not_repeated() -> None:
    server = Server(Fault("no answer", Cause.DOWN), commits=True)
    assert StoreCalls(URI).create(server.create, server.found) == "run 1"
    assert server.created == ["run 1"]


@pytest.mark.usefixtures("no_pauses")
def test_a_refused_creation_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(Fault("no such experiment", Cause.MISSING))
    calls = StoreCalls(URI)
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"), pytest.raises(NotRecorded):
        calls.create(server.create, server.found)
    assert "did not accept data of the study (no such experiment)" in caplog.text
    assert server.attempts == 1
    assert not calls.silent


def test_no_attempt_is_made_after_a_creation_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "_TIMEOUT_SECONDS", 0.05)
    server = Server(Fault("refused", Cause.DOWN))
    calls = StoreCalls(URI)
    with pytest.raises(NotRecorded):
        calls.create(server.create, server.found)  # the pause would be longer than the time that is left
    assert calls.silent
    assert server.attempts == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "sysmetrics-store-call"]


@pytest.mark.usefixtures("no_pauses")
def test_a_write_is_repeated_without_looking_for_it() -> None:
    server = Server(Fault("no answer", Cause.DOWN), commits=True)
    calls = StoreCalls(URI)
    calls.write(server.create)
    assert server.attempts == 2
    assert not calls.silent


def test_no_attempt_is_made_after_a_write_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "_TIMEOUT_SECONDS", 0.05)
    server = Server(Fault("refused", Cause.DOWN))
    calls = StoreCalls(URI)
    with pytest.raises(NotRecorded):
        calls.write(server.create)
    assert calls.silent
    assert server.attempts == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "sysmetrics-store-call"]
