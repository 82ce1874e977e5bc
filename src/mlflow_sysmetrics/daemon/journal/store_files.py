"""Whether a file store exists: MLflow would create a missing one and then report that it has no such run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import lasting
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

THREAD_NAME = "sysmetrics-stores"

_TIMEOUT_SECONDS = 1.0  # a disk that is there answers at once

_logger = Log()


def check_store(tracking_uri: str) -> None:
    """Checks that a store exists, if it is a file or a directory.

    A disk may be mounted later, so a missing store is not final: the points wait.

    Raises:
        Fault: it does not exist.
    """
    path = store_path(tracking_uri)
    if path is not None and not path.exists():
        raise Fault(
            f"{path} does not exist", Cause.DOWN, remedy="Mount the disk that holds it, or correct its path."
        )


def store_path(tracking_uri: str) -> Path | None:
    """Returns the file or directory of a tracking URI; None for a server."""
    uri = lasting(tracking_uri)
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return Path(uri) if Path(uri).is_absolute() else None
    if scheme.partition("+")[0] == "sqlite":
        return None if ":memory:" in rest else Path(rest.removeprefix("/"))
    return Path(unquote(rest)) if scheme == "file" and rest.startswith("/") else None


class MissingStores:
    """Finds file stores that do not exist; logs only the first of them.

    A network filesystem whose server is away does not answer at all. After one such case no file store is
    tried.
    """

    def __init__(self) -> None:
        self._has_logged = self._silent = False

    def reason(self, tracking_uri: str) -> str | None:
        """Returns why nothing can be delivered to a store; None if it is worth a try."""
        path = store_path(tracking_uri)
        if path is None:
            return None
        reason = f"the disk of {path} may not answer" if self._silent else self._look(tracking_uri)
        if reason is not None and not self._has_logged:
            self._has_logged = True
            _logger.info("mlflow-sysmetrics: Points of processes that died stay on disk: %s.", reason)
        return reason

    def _look(self, tracking_uri: str) -> str | None:
        try:
            bounded(lambda: check_store(tracking_uri), _TIMEOUT_SECONDS, name=THREAD_NAME)
        except CallTimeout:
            self._silent = True
            return f"the disk of {store_path(tracking_uri)} does not answer"
        except (OSError, Fault) as error:
            return str(error)
        return None
