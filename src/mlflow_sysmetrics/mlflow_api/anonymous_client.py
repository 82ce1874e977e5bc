"""A client of a tracking server that sends no credentials of the environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.clients import is_plain_rest, open_client
from mlflow_sysmetrics.mlflow_api.outcomes import nothing
from mlflow_sysmetrics.mlflow_api.transport import API, request

T = TypeVar("T")

_SECONDS = 30.0


def open_anonymous_client(tracking_uri: str) -> Any:
    """Returns a client with the methods of `MlflowClient` that the commands use.

    A database or a directory has no credentials of the environment: it gets an `MlflowClient`. So does a
    plugin of MLflow's REST client, whose store then resolves no credentials for the rest of the process,
    since MLflow shares its stores.
    """
    client = open_client(tracking_uri)
    store = fluent_state.store_of(client)
    if is_plain_rest(store):
        return AnonymousClient(tracking_uri)
    get_host_creds = getattr(store, "get_host_creds", None)
    if get_host_creds is not None:
        store.get_host_creds = lambda: without_credentials(get_host_creds())
    return client


def without_credentials(creds: Any) -> Any:
    """Returns MLflow's description of a server with the host and how to verify it, and nothing else."""
    return type(creds)(
        creds.host,
        ignore_tls_verification=creds.ignore_tls_verification,
        server_cert_path=creds.server_cert_path,
    )


class AnonymousClient:
    """Sends MLflow's REST requests without credentials, one attempt each, and returns MLflow's entities.

    Every method raises `Fault` if there is no answer, or one that is not MLflow's.

    Args:
        tracking_uri: the server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def get_run(self, run_id: str) -> Any:
        """Returns a run."""
        from mlflow.entities import Run
        from mlflow.protos.service_pb2 import GetRun

        def read(answer: Any) -> Any:
            run = Run.from_proto(_message(answer, GetRun.Response()).run)
            if run.info.run_id != run_id:
                raise ValueError("another run")
            return run

        return self._ask(read, "GET", "runs/get", params={"run_id": run_id})

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str,
        max_results: int,
        page_token: str | None = None,
    ) -> Any:
        """Returns a page of runs, with the token of the next one."""
        from mlflow.entities import Run
        from mlflow.protos.service_pb2 import SearchRuns
        from mlflow.store.entities import PagedList

        def read(answer: Any) -> Any:
            response = _message(answer, SearchRuns.Response())
            return PagedList([Run.from_proto(run) for run in response.runs], response.next_page_token or None)

        body = {"experiment_ids": list(experiment_ids), "filter": filter_string, "max_results": max_results}
        return self._ask(read, "POST", "runs/search", json=body | _token(page_token))

    def search_experiments(self, page_token: str | None = None) -> Any:
        """Returns a page of active experiments, with the token of the next one."""
        from mlflow.entities import Experiment
        from mlflow.protos.service_pb2 import SearchExperiments
        from mlflow.store.entities import PagedList

        def read(answer: Any) -> Any:
            response = _message(answer, SearchExperiments.Response())
            experiments = [Experiment.from_proto(one) for one in response.experiments]
            return PagedList(experiments, response.next_page_token or None)

        body = {"max_results": 1000, "view_type": "ACTIVE_ONLY"}
        return self._ask(read, "POST", "experiments/search", json=body | _token(page_token))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Sets a tag of a run."""
        self._ask(nothing, "POST", "runs/set-tag", json={"run_id": run_id, "key": key, "value": value})

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        """Ends a run; the time is in milliseconds since 1970."""
        body = {"run_id": run_id, "status": status, "end_time": end_time}
        self._ask(lambda answer: answer == {} or answer["run_info"], "POST", "runs/update", json=body)

    def _ask(self, read: Callable[[Any], T], method: str, endpoint: str, **body: Any) -> T:
        answer = request(self._uri, method, f"{API}{endpoint}", _SECONDS, anonymous=True, **body)
        return answer.read(read, self._uri)


def _message(answer: Any, message: Any) -> Any:
    """Returns the protocol buffer of an answer.

    Raises:
        ValueError: the answer has fields, and none of them is the message's.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.utils.proto_json_utils import parse_dict

    try:
        parse_dict(answer, message)
    except ParseError as error:
        raise ValueError(str(error)) from error
    if answer and not message.ListFields():
        raise ValueError("another message")
    return message


def _token(page_token: str | None) -> dict[str, str]:
    return {} if page_token is None else {"page_token": page_token}
