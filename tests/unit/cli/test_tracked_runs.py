"""`TrackingServer` reads runs from a tracking server and ends them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from orphaned import CPU, SERVER, now_ms

from mlflow_sysmetrics.cli.tracked_runs import TrackedRun, TrackingServer
from mlflow_sysmetrics.mlflow_api.faults import Fault


class StoreError(Exception):
    """Stands in for MLflow's exception."""

    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class FakeClient:
    """Stands in for `MlflowClient`."""

    def __init__(self, run: Any = None, error: Exception | None = None) -> None:
        self.found = run
        self.error = error
        self.calls: list[str] = []

    def get_run(self, run_id: str) -> Any:
        if self.error:
            raise self.error
        return self.found

    def search_experiments(self, page_token: str | None) -> Any:
        class Page(list[Any]):
            token = None if page_token else "more"

        name = "second" if page_token else "first"
        return Page([SimpleNamespace(name=name, experiment_id=name.upper())])

    def set_tag(self, *_: str) -> None:
        self.calls.append("set_tag")

    def set_terminated(self, *_: str, status: str, end_time: int) -> None:
        self.calls.append(f"{status} {end_time}")


def server(client: FakeClient) -> TrackingServer:
    """Returns a server with that client; the constructor would import MLflow."""
    made = object.__new__(TrackingServer)
    made.uri = "http://me:secret@tracking:5000"
    made.client = client
    return made


def entity(*, status: str = "RUNNING", stage: str = "active", metrics: dict[str, int] | None = None) -> Any:
    """Returns a run entity with the time of each metric."""
    found = [SimpleNamespace(key=key, value=1.0, timestamp=time) for key, time in (metrics or {}).items()]
    proto = SimpleNamespace(metrics=found)
    return SimpleNamespace(
        info=SimpleNamespace(
            run_id="r", status=status, lifecycle_stage=stage, start_time=7, experiment_id="0"
        ),
        data=SimpleNamespace(tags={"sys.hostname": "here"}, to_proto=lambda: proto),
    )


def read(run: Any) -> TrackedRun:
    found = server(FakeClient(run)).run("r")
    assert found is not None
    return found


def test_the_newest_point_of_any_series_is_a_sign_of_life() -> None:
    run = read(entity(metrics={CPU: 1000, "loss": 2000}))
    assert (run.last_sign, run.system) == (2000, {CPU: 1.0})


def test_a_time_in_the_future_is_not_a_sign_of_life() -> None:
    assert read(entity(metrics={CPU: 1000, "loss": now_ms() + 10**6})).last_sign == 1000


@pytest.mark.parametrize(("status", "stage"), [("FINISHED", "active"), ("RUNNING", "deleted")])
def test_an_ended_or_deleted_run_is_not_running(status: str, stage: str) -> None:
    assert not read(entity(status=status, stage=stage)).running


def test_an_unknown_run_is_none() -> None:
    assert server(FakeClient(error=StoreError("gone", "RESOURCE_DOES_NOT_EXIST"))).run("r") is None


def test_other_errors_mean_unreachable_and_show_no_secrets() -> None:
    error = StoreError("no answer from http://me:secret@tracking:5000/x", "INTERNAL_ERROR")
    with pytest.raises(Fault, match="no answer from http://tracking:5000/x"):
        server(FakeClient(error=error)).run("r")


def test_a_refused_connection_is_reported_without_its_wrappers() -> None:
    error = StoreError("Max retries exceeded", "INTERNAL_ERROR")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(Fault, match=r"^Connection refused$"):
        server(FakeClient(error=error)).run("r")


def test_experiments_are_read_page_by_page() -> None:
    assert server(FakeClient()).experiment_ids([]) == ["FIRST", "SECOND"]


def test_an_unknown_experiment_is_named_with_the_existing_ones() -> None:
    with pytest.raises(LookupError, match="has no experiment 'x'; its experiments are 'first', 'second'"):
        server(FakeClient()).experiment_ids(["x"])


def test_a_run_is_tagged_before_it_is_ended() -> None:
    """A run that is no longer RUNNING would not be considered again."""
    client = FakeClient()
    server(client).kill("r", 5, "why")
    assert client.calls == ["set_tag", "KILLED 5"]


def test_the_name_of_a_server_has_no_secrets() -> None:
    assert server(FakeClient()).name == SERVER


def test_a_missing_run_cannot_be_ended() -> None:
    client = FakeClient()
    client.set_tag = lambda *_: (_ for _ in ()).throw(StoreError("gone", "RESOURCE_DOES_NOT_EXIST"))  # type: ignore[method-assign]
    with pytest.raises(Fault) as raised:
        server(client).kill("r", 5, "why")
    assert raised.value.refuses_run


def test_output_of_mlflow_is_suppressed(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    client.set_terminated = lambda *_, **__: sys.stdout.write("View run")  # type: ignore[method-assign]
    server(client).kill("r", 5, "why")
    assert capsys.readouterr().out == ""
