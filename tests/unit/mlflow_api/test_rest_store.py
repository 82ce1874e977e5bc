"""JSON that is not of MLflow is a fault like any other answer, whichever question it came to."""

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
)


def store_that_hears(text: str, monkeypatch: pytest.MonkeyPatch) -> RestStore:
    """Returns a store whose server answers every request with 200 and a text."""
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
def test_json_of_another_shape_is_not_of_mlflow(
    ask: Callable[[RestStore], object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_that_hears(text, monkeypatch)
    with pytest.raises(Fault) as raised:
        ask(store)
    assert (raised.value.cause, raised.value.status_code) == (Cause.NOT_MLFLOW, 200)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("runs", ["5", '"none"', "[{}]", '{"info": 5}'])
def test_runs_of_another_shape_are_not_of_mlflow(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_that_hears(f'{{"runs": {runs}}}', monkeypatch)
    with pytest.raises(Fault, match="not what MLflow answers"):
        store.run_tagged("7", "key", "value", 1.0)


@pytest.mark.parametrize("text", ["{}", '{"runs": []}', '{"runs": null}'])
def test_an_answer_without_runs_says_that_there_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_that_hears(text, monkeypatch).run_tagged("7", "key", "value", 1.0) is None


def test_what_was_answered_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_that_hears('{"status": "UP", "you": "anna:secret"}', monkeypatch)
    with pytest.raises(Fault, match='"status": "UP"') as raised:
        store.run("r", 1.0)
    assert "secret" not in raised.value.reason
