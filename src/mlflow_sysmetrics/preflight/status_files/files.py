"""The files beside a run: written for the service that shows it, and read by that.

`mlflow_status.json` says how far the preflight has come, `mlflow_info.json` which run the program has. Where
they cannot be written nothing is lost but the files, so that is a warning and never an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.mlflow_api.artifact_target import put_into_run
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.preflight.status_files.documents import run_document, status_document, status_from
from mlflow_sysmetrics.preflight.status_files.status import RunInfo, Status
from mlflow_sysmetrics.preflight.status_files.target import Target, open_target, split_target
from mlflow_sysmetrics.runtime.bounded_calls import BoundedWrites

STATUS_FILE = "mlflow_status.json"
INFO_FILE = "mlflow_info.json"

_LAST_STAGES = frozenset({"failed", "completed"})
_LONGEST_REASON = 300

_logger = logging.getLogger("mlflow_sysmetrics")


class StatusFiles:
    """Writes `mlflow_status.json` and `mlflow_info.json`; warns once where that fails, and never raises.

    A local directory is made if it is missing, and its files are replaced at once. An object store is written
    beside the program, which waits ten seconds for it and for a store that hangs half a minute in all.

    Args:
        target: a local directory, or a URI that MLflow can write artifacts to; one of the two files in it
            stands for that directory. None or empty writes nothing.
    """

    def __init__(self, target: str | os.PathLike[str] | None) -> None:
        self._warned: set[str] = set()
        self._target: Target | None = None
        self._runs: dict[str, BoundedWrites] = {}
        if target is None or target == "":
            return
        try:
            self._target = open_target(target, STATUS_FILE, INFO_FILE)
        except ValueError as error:
            self._warn(STATUS_FILE, "status_path", _reason(error, str(target)))

    def write_status(self, status: Status) -> None:
        """Writes `mlflow_status.json`, over the one before."""
        last = status.stage in _LAST_STAGES
        self._write(STATUS_FILE, lambda: status_document(status), last=last)

    def forget_info(self) -> None:
        """Removes the `mlflow_info.json` of an earlier program: it says nothing of this one's run."""
        if self._target is None:
            return
        try:
            self._target.remove(INFO_FILE)
        except Exception as error:  # noqa: BLE001 - as below
            _logger.warning(
                "mlflow-sysmetrics: %s at %s could not be removed, and may be of an earlier run: %s",
                INFO_FILE,
                self._target.shown,
                _reason(error, self._target.uri),
            )

    def write_info(self, run: RunInfo, *, run_artifact: bool = False) -> None:
        """Writes `mlflow_info.json`, over the one before.

        Args:
            run: what it says.
            run_artifact: makes it an artifact of that run too, also where there is no target.
        """
        last = run.ended_at is not None
        self._write(INFO_FILE, lambda: run_document(run), last=last)
        if not run_artifact:
            return
        where = f"the artifacts of run {run.run_id}"
        try:
            writes = self._runs.setdefault(
                run.run_id,
                BoundedWrites(lambda name, text: put_into_run(run.tracking_uri, run.run_id, name, text)),
            )
            writes.write(INFO_FILE, _json(run_document(run)), last=last)
        except Exception as error:  # noqa: BLE001 - of MLflow and of the library of the run's artifact store
            self._warn(INFO_FILE, where, _reason(error, run.tracking_uri))

    def _write(self, name: str, document: Callable[[], dict[str, Any]], *, last: bool) -> None:
        if self._target is None:
            return
        try:
            self._target.write(name, _json(document()), last=last)
        except Exception as error:  # noqa: BLE001 - of MLflow and of the library of the store
            self._warn(name, self._target.shown, _reason(error, self._target.uri))

    def _warn(self, name: str, where: str, reason: str) -> None:
        if where not in self._warned:
            self._warned.add(where)
            _logger.warning(
                "mlflow-sysmetrics: %s could not be written to %s: %s. The training goes on without it.",
                name,
                where,
                reason.rstrip(". "),
            )


def read_status(path: str | os.PathLike[str]) -> Status:
    """Returns what a `mlflow_status.json` says; newer schemas are read as far as they are known here.

    Args:
        path: the file, the directory that it lies in, or the URI of either.

    Raises:
        FileNotFoundError: there is no such file: no preflight has begun, or its files go elsewhere.
        OSError: it could not be read.
        ValueError: it is no status file.
    """
    text = os.fspath(path)
    name = _file_name(text)
    target = open_target(path, name)
    shown = f"{target.shown}/{name}"
    try:
        return status_from(json.loads(target.read(name)))
    except UnicodeDecodeError:
        raise ValueError(f"{shown} is no status file: it is no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{shown} is no status file: it is no JSON ({error})") from None
    except ValueError as error:
        raise ValueError(f"{shown} is no status file: {error}") from None


def _file_name(path: str) -> str:
    """Returns the name of the file that is meant: the last part, or ours where that is a directory."""
    name = split_target(path)[1]
    is_file = name.endswith(".json") or Path(path).is_file()
    return name if is_file and not Path(path).is_dir() else STATUS_FILE


def _json(document: dict[str, Any]) -> str:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # File names that are no UTF-8 come as lone surrogates, which no file takes.
    return text.encode("utf-8", "replace").decode("utf-8")


def _reason(error: BaseException, uri: str) -> str:
    """Returns the first line of what went wrong, without secrets."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first, *_ = cleaned(text, uri).strip().splitlines() or [""]
    return first[:_LONGEST_REASON] or type(error).__name__
