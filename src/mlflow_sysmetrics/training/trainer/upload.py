"""The best checkpoint as an artifact of the run: once, at the end, in bounded time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.tracking.bounded import TookTooLong, bounded
from mlflow_sysmetrics.tracking.mlflow_client import open_client
from mlflow_sysmetrics.tracking.secrets import cleaned

FOLDER = "checkpoints"
# A server that is there tells within this what it knows of a run. One that is down would be tried by MLflow
# for minutes, at the end of each of a study's trials.
_ANSWER_SECONDS = 10.0

_logger = logging.getLogger("mlflow_sysmetrics")


def upload(path: Path, tracking_uri: str, run_id: str, seconds: float) -> bool:
    """Logs a file to the folder ``checkpoints`` of a run; returns whether it is there.

    What does not work is a warning, which says how to do it later: the file stays where it is.

    Args:
        path: of the file.
        tracking_uri: of the run.
        run_id: the run.
        seconds: longest time for the file, once the server has answered.
    """
    late = f"no answer within {_ANSWER_SECONDS:g} s"
    try:
        client = bounded(lambda: _reached(tracking_uri, run_id), _ANSWER_SECONDS, name="sysmetrics-upload")
        late = f"not done after {seconds:g} s"
        bounded(lambda: client.log_artifact(run_id, str(path), FOLDER), seconds, name="sysmetrics-upload")
    except TookTooLong:
        reason = late
    except Exception as error:  # noqa: BLE001 - MLflow's, its store's, or the library's of an object store
        reason = cleaned(str(error), tracking_uri)
    else:
        return True
    _logger.warning(
        "mlflow-sysmetrics: the best checkpoint is not among the artifacts of run %s: %s. Log it later: "
        "mlflow artifacts log-artifact --run-id %s --local-file %s --artifact-path %s",
        run_id,
        reason,
        run_id,
        path,
        FOLDER,
    )
    return False


def _reached(tracking_uri: str, run_id: str) -> Any:  # noqa: ANN401 - MLflow's client
    client = open_client(tracking_uri)
    client.get_run(run_id)
    return client
