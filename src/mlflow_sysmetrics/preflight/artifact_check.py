"""Whether an artifact of a run can be written and read back."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from mlflow_sysmetrics.mlflow_api.artifact_target import artifacts_of_run
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.runtime.bounded_calls import bounded

_DIRECTORY = "preflight"
_NAME = "ok.txt"
_REMEDY = (
    "Check that the experiment's artifact store exists, and that this machine has the credentials and the "
    "Python package for it (boto3, google-cloud-storage, azure-storage-blob), or start the server with "
    "--serve-artifacts."
)


def check_artifacts(tracking_uri: str, run_id: str, seconds: float) -> None:
    """Writes the artifact ``preflight/ok.txt`` of a run and reads it back.

    Raises:
        Fault: that did not work, or took longer than the seconds given.
    """
    began = time.monotonic()
    try:
        came_back = bounded(lambda: _round_trip(tracking_uri, run_id), seconds)
    except Exception as error:  # noqa: BLE001 - object stores raise what their libraries raise
        found = fault_of_error(error, tracking_uri, seconds=time.monotonic() - began)
        fault = Fault(f"artifact {_DIRECTORY}/{_NAME}: {found.reason}", found.cause, remedy=_REMEDY)
    else:
        if came_back == run_id:
            return
        fault = Fault(
            f"artifact {_DIRECTORY}/{_NAME} was written, and something else is read",
            Cause.NOT_READ_BACK,
            remedy=_REMEDY,
        )
    raise fault


def _round_trip(tracking_uri: str, run_id: str) -> str:
    run = open_client(tracking_uri).get_run(run_id)
    artifacts = artifacts_of_run(tracking_uri, run.info.artifact_uri)
    with tempfile.TemporaryDirectory() as directory:
        sent = Path(directory, _NAME)
        sent.write_text(run_id, encoding="utf-8")
        artifacts.log_artifact(str(sent), _DIRECTORY)
        back = Path(directory, "back")
        back.mkdir()
        found = artifacts.download_artifacts(f"{_DIRECTORY}/{_NAME}", str(back))
        return Path(found).read_text(encoding="utf-8")
