"""scikit-learn models in a real registry: registered, promoted and loaded, or rejected without a trace."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

np = pytest.importorskip("numpy")
linear_model = pytest.importorskip("sklearn.linear_model")

import mlflow
from programs import Program, Store
from registry_store import REQUIREMENTS, Registry, active_run_id

from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.training.registry import (
    PromotionError,
    find_version,
    load_model,
    promote,
    register_model,
)

pytest_plugins = ["registry_fixtures"]
# MLflow's warnings about the libraries that it finds. Its warning about stages, a FutureWarning, stays an error.
pytestmark = [
    pytest.mark.usefixtures("registry"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ROW = np.array([[1.0, 2.0]])


def fitted() -> Any:
    return linear_model.LinearRegression().fit(
        np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), [1.0, 2.0, 3.0]
    )


def register(*given: Any, model: Any = None, **named: Any) -> Any:
    return register_model(
        fitted() if model is None else model, "ships", *given, pip_requirements=REQUIREMENTS, **named
    )


@pytest.mark.every_database
def test_a_model_is_registered_with_everything_given(registry: Registry) -> None:
    made = register(ROW, "production", {"f1": 0.5}, "the first", registered_tags={"team": "sea"})
    assert (int(made.version), made.current_stage, made.description) == (1, "Production", "the first")
    assert made.tags == {"f1": "0.5"}
    assert list(made.aliases) == ["production"]
    assert made.run_id == registry.run_id
    assert registry.client.get_registered_model("ships").tags == {"team": "sea"}


@pytest.mark.parametrize("sample", [[[1.0, 2.0]], [(1, 2)], ([1.0, 2.0],)])
def test_a_model_registered_with_rows_as_lists_serves(sample: Any) -> None:
    register(sample, "production")
    assert load_model("ships").predict(ROW.astype(np.asarray(sample).dtype)) == fitted().predict(ROW)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"await_registration_for": "soon"}, "await_registration_for must be .*, got 'soon'"),
        ({"run_id": 5}, "run_id must be a string, got 5"),
    ],
)
def test_an_argument_of_the_wrong_type_is_rejected_before_anything_is_logged(
    registry: Registry, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        register(ROW, **arguments)
    assert registry.is_empty()


def test_an_alias_must_be_a_string() -> None:
    with pytest.raises(ValueError, match="alias_or_stage must be a string, got 5"):
        find_version("ships", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 64])
def test_a_model_registered_with_one_row_serves_batches_of_any_size(rows: int) -> None:
    register(ROW, "Production")
    batch = np.repeat(ROW, rows, axis=0)
    served = load_model("ships")
    assert served.predict(batch).shape == (rows,)
    assert mlflow.sklearn.load_model("models:/ships/1").predict(batch).shape == (rows,)


def test_a_scoring_server_accepts_a_batch() -> None:
    from mlflow.pyfunc import scoring_server

    register(ROW, "Production")
    served = load_model("ships")
    body = json.dumps({"inputs": np.repeat(ROW, 64, axis=0).tolist()})
    answer = scoring_server.invocations(body, "application/json", served, served.metadata.get_input_schema())
    assert answer.status == 200
    assert len(json.loads(answer.response)["predictions"]) == 64


def test_signature_and_example_are_derived_from_the_sample() -> None:
    register(np.repeat(ROW, 9, axis=0))
    described = mlflow.models.get_model_info("models:/ships/1")
    assert described.signature.inputs.inputs[0].shape == (-1, 2)
    served = mlflow.pyfunc.load_model("models:/ships/1")
    assert served.metadata.saved_input_example_info is not None


def test_a_data_frame_can_be_a_sample() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[0.0, 1.0], [1.0, 0.0]], columns=["a", "b"])
    register(frame[:1], "Production", model=linear_model.LinearRegression().fit(frame, [1.0, 2.0]))
    assert load_model("ships").metadata.signature.inputs.input_names() == ["a", "b"]


def test_a_model_that_fails_on_its_sample_is_registered_without_a_signature(
    caplog: pytest.LogCaptureFixture,
) -> None:
    register(np.ones((1, 7)), "Production")
    assert "the model fails on the sample" in caplog.text
    assert "input example: ValueError" in caplog.text
    assert load_model("ships").metadata.signature is None


def test_a_model_needs_no_sample(registry: Registry) -> None:
    register(stage="Production")
    assert load_model("ships").metadata.signature is None
    assert registry.stages("ships") == {1: "Production"}


@pytest.mark.every_database
def test_the_next_version_replaces_the_first_in_production(registry: Registry) -> None:
    register(ROW, "Production")
    register(ROW, "Production")
    assert registry.stages("ships") == {1: "Archived", 2: "Production"}
    assert int(find_version("ships").version) == 2


def test_two_models_of_one_run_are_separate() -> None:
    other = fitted()
    other.intercept_ = 100.0
    register(ROW)
    register(ROW, model=other)
    first, second = (mlflow.pyfunc.load_model(f"models:/ships/{number}").predict(ROW)[0] for number in (1, 2))
    assert second - first == pytest.approx(100.0 - fitted().intercept_)


def test_a_model_is_logged_to_the_named_run(registry: Registry) -> None:
    experiment = registry.client.create_experiment("other")
    other = registry.client.create_run(experiment)
    made = register(ROW, run_id=other.info.run_id)
    assert made.run_id == other.info.run_id
    assert registry.client.get_run(other.info.run_id).info.status == "RUNNING"
    assert active_run_id() == registry.run_id
    assert registry.client.list_artifacts(registry.run_id) == []
    if hasattr(registry.client, "search_logged_models"):
        logged = registry.client.search_logged_models([experiment, "0"])
        assert [one.experiment_id for one in logged] == [experiment]


def test_a_named_run_needs_no_active_run(registry: Registry) -> None:
    mlflow.end_run()
    made = register(ROW, run_id=registry.run_id)
    assert made.run_id == registry.run_id
    assert active_run_id() is None


@pytest.mark.every_database
def test_promote_moves_the_alias_and_the_stage(registry: Registry) -> None:
    register(ROW)
    register(ROW)
    promote("ships", 1, "Production")
    moved = promote("ships", "2", "production")
    assert (moved.current_stage, list(moved.aliases)) == ("Production", ["production"])
    assert registry.stages("ships") == {1: "Archived", 2: "Production"}
    assert int(find_version("ships").version) == 2


def test_archiving_removes_the_alias() -> None:
    register(ROW, "Production")
    assert list(promote("ships", 1, "Archived").aliases) == []
    with pytest.raises(LookupError, match="no version with alias 'production' and stage Production"):
        load_model("ships")


def test_a_version_without_alias_is_found_by_its_stage() -> None:
    register(ROW, "Production", alias=None)
    assert int(find_version("ships", "production").version) == 1


def test_a_custom_alias_is_found(registry: Registry) -> None:
    register(ROW, alias="champion")
    assert int(find_version("ships", "champion").version) == 1
    assert registry.stages("ships") == {1: "None"}


def test_a_version_that_does_not_exist_is_not_promoted() -> None:
    register(ROW)
    with pytest.raises(mlflow.MlflowException):
        promote("ships", 7, "Production")
    with pytest.raises(LookupError):
        find_version("ships")


def test_promoting_to_nothing_is_rejected() -> None:
    register(ROW)
    with pytest.raises(ValueError, match="give a stage, an alias, or both"):
        promote("ships", 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stage": "prod"}, "None, Staging, Production, Archived"),
        ({"alias": "latest"}, "reserved"),
        ({"alias": "v2"}, "reserved"),
        ({"tags": {"a": None}}, r"tags\['a'\] must be a string"),
        ({"registered_tags": {"a": []}}, "registered_tags"),
        ({"description": 3}, "description must be .*, got 3"),
        ({"artifact_path": ""}, "artifact_path"),
        ({"serialization_format": "pt2"}, "'cloudpickle', 'pickle', 'skops'"),
        ({"run_id": "0" * 32}, "there is no such run"),
    ],
)
def test_an_invalid_argument_is_rejected_before_anything_is_logged(
    registry: Registry, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        register(ROW, **wrong)
    assert registry.is_empty()


def test_a_model_of_another_library_is_rejected_by_its_type(registry: Registry) -> None:
    with pytest.raises(TypeError, match=r"got a builtins\.dict"):
        register(model={})
    with pytest.raises(TypeError, match="got the class LinearRegression"):
        register(model=linear_model.LinearRegression)
    assert registry.is_empty()


def test_an_unknown_argument_is_rejected(registry: Registry) -> None:
    with pytest.raises(TypeError, match="unexpected argument 'stages'"):
        register(ROW, stages="Production")
    assert registry.is_empty()


def test_nothing_is_logged_without_a_run(registry: Registry) -> None:
    mlflow.end_run()
    with pytest.raises(NoActiveRunError, match=r"mlflow\.start_run"):
        register(ROW)
    assert active_run_id() is None
    assert registry.is_empty()


def test_a_deleted_run_is_rejected(registry: Registry) -> None:
    other = registry.client.create_run("0").info.run_id
    registry.client.delete_run(other)
    with pytest.raises(ValueError, match="is deleted"):
        register(ROW, run_id=other)


class Unsaveable(linear_model.LinearRegression):  # type: ignore[misc]
    """A model that cannot be pickled."""

    def __reduce__(self) -> str:
        raise OSError("not this one")


def test_a_model_that_cannot_be_saved_leaves_no_trace(registry: Registry) -> None:
    with pytest.raises(OSError, match="not this one"):
        register(model=Unsaveable())
    assert registry.is_empty()


def test_a_failed_promotion_leaves_a_version_that_is_not_promoted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server has gone")

    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, "set_registered_model_alias", refuse)
        with pytest.raises(PromotionError, match="the server has gone") as failed:
            register(ROW, alias="champion", description="whole")
    assert failed.value.version == "1"
    (made,) = registry.versions("ships")
    assert (made.description, made.current_stage) == ("whole", "None")
    assert "promote('ships', 1, alias='champion')" in str(failed.value)
    promote("ships", 1, alias="champion")
    assert int(find_version("ships", "champion").version) == 1


def test_a_version_is_described_before_it_is_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, dict[str, str]]] = []
    change = (
        mlflow.MlflowClient.transition_model_version_stage.__wrapped__
        if hasattr(mlflow.MlflowClient.transition_model_version_stage, "__wrapped__")
        else mlflow.MlflowClient.transition_model_version_stage
    )

    def watched(client: Any, name: str, version: str, *given: Any, **named: Any) -> Any:
        made = client.get_model_version(name, version)
        seen.append((made.description, made.tags))
        return change(client, name, version, *given, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "transition_model_version_stage", watched)
    register(ROW, "Production", {"a": "b"}, "whole")
    assert seen == [("whole", {"a": "b"})]


def test_the_name_of_a_model_may_contain_a_quote(registry: Registry) -> None:
    register_model(fitted(), "captain's", ROW, "Production", pip_requirements=REQUIREMENTS)
    register_model(fitted(), "captain's", ROW, "Production", pip_requirements=REQUIREMENTS)
    assert int(find_version("captain's").version) == 2
    assert registry.client.get_model_version("captain's", "1").current_stage == "Archived"


def test_nothing_is_logged_and_no_warning_is_shown(store: Store, program: Program) -> None:
    done = program(
        store.uri,
        """
        import numpy as np, warnings
        from sklearn.linear_model import LinearRegression
        from mlflow_sysmetrics.training.registry import load_model, promote, register_model
        shown = []

        def work():
            register_model(model, "ships", np.ones((1, 2)), stage="Production", pip_requirements=["mlflow"])
            promote("ships", 1, "Staging")
            load_model("ships", "staging")

        model = LinearRegression().fit(np.eye(2), [1.0, 2.0])
        with mlflow.start_run(log_system_metrics=False):
            work()  # imports libraries for MLflow, whose own warnings are not about this package
            logging.getLogger("mlflow").addHandler(type("", (logging.Handler,), {
                "emit": lambda self, record: shown.append(record.getMessage())})())
            warnings.showwarning = lambda message, kind, *_: shown.append(f"{kind.__name__}: {message}")
            warnings.simplefilter("always", FutureWarning)
            work()
        print(shown)
        """,
        MLFLOW_RUN_CONTEXT_PROVIDER="none",
    )
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_caller_can_turn_warnings_into_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        register(ROW, "Production")
        promote("ships", 1, "Archived")
