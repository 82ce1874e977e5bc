"""JSON of another shape than MLflow's is a fault, whatever the question was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlflow_sysmetrics.mlflow_api import rest_store
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer

QUESTIONS: tuple[Callable[[RestStore], object], ...] = (
    lambda store: store.experiment_named("ships", 1.0),
    lambda store: store.experiment("7", 1.0),
    lambda store: store.create_run("7", None, {}, 1.0),
    lambda store: store.run("r", 1.0),
    lambda store: store.create_experiment("ships", 1.0),
)


def store_answered(text: str, monkeypatch: pytest.MonkeyPatch) -> RestStore:
    """Returns a store whose server answers every request with HTTP 200 and a text."""
    monkeypatch.setattr(rest_store, "request", lambda *_, **__: ServerAnswer(200, text, {}, 0.01))
    return RestStore("http://anna:secret@host:5000")


@pytest.mark.parametrize("ask", QUESTIONS)
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"status": "UP"}',
        '{"experiment": null, "run": null}',
        '{"experiment": [], "run": {"info": 5}}',
        '{"experiment": {}, "run": {"info": {}}}',
    ],
)
def test_json_of_another_shape_is_not_mlflows(
    ask: Callable[[RestStore], object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_answered(text, monkeypatch)
    with pytest.raises(Fault) as raised:
        ask(store)
    assert (raised.value.cause, raised.value.status_code) == (Cause.NOT_MLFLOW, 200)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("text", ['{"status": "UP"}', '{"run": {}}', "[]", "null"])
def test_a_batch_is_acknowledged_with_the_empty_object(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store_answered("{}", monkeypatch).log("r", ("m", 1.0), {}, {}, 1.0)
    with pytest.raises(Fault, match="HTTP 200") as raised:
        store_answered(text, monkeypatch).log("r", ("m", 1.0), {}, {}, 1.0)
    assert raised.value.cause is Cause.NOT_MLFLOW


def test_an_answer_to_another_request_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ServerAnswer(200, "{}", {}, 0.01, "http://host:5000/login", is_to_request=False)
    monkeypatch.setattr(rest_store, "request", lambda *_, **__: answer)
    with pytest.raises(Fault, match="redirected to http://host:5000/login"):
        RestStore("http://host:5000").log("r", ("m", 1.0), {}, {}, 1.0)


@pytest.mark.parametrize("runs", ["5", '"none"', "[{}]", '{"info": 5}'])
def test_runs_of_another_shape_are_not_mlflows(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_answered(f'{{"runs": {runs}}}', monkeypatch)
    with pytest.raises(Fault, match="HTTP 200, but not MLflow's answer"):
        store.run_tagged("7", "key", "value", 1.0)


def test_a_search_of_another_shape_is_not_mlflows(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fault, match="HTTP 200, but not MLflow's answer"):
        store_answered('{"status": "UP"}', monkeypatch).run_tagged("7", "key", "value", 1.0)


@pytest.mark.parametrize("text", ["{}", '{"runs": []}', '{"runs": null}'])
def test_a_search_without_runs_found_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_answered(text, monkeypatch).run_tagged("7", "key", "value", 1.0) is None


def test_the_answer_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_answered('{"status": "UP", "you": "anna:secret"}', monkeypatch)
    with pytest.raises(Fault, match='"status": "UP"') as raised:
        store.run("r", 1.0)
    assert "secret" not in raised.value.reason
