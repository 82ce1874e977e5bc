"""Writes and reads the files beside a run, which a job service shows to its users.

`mlflow_status.json` reports the progress of the preflight, `mlflow_info.json` the run of the program. Only
the files are lost if they cannot be written, so that is a warning and never an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.errors import shortened
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.preflight.status_files.documents import (
    JobStatus,
    RunInfo,
    run_document,
    status_document,
    status_from,
)
from mlflow_sysmetrics.preflight.status_files.target import (
    RunArtifacts,
    Target,
    WritableTarget,
    open_target,
    split_target,
)

STATUS_FILE = "mlflow_status.json"
INFO_FILE = "mlflow_info.json"

_LAST_STAGES = frozenset({"failed", "completed"})
_LONGEST_REASON = 300

_logger = logging.getLogger("mlflow_sysmetrics")


class StatusFiles:
    """Writes `mlflow_status.json` and `mlflow_info.json`; warns once if that fails, and never raises.

    A local directory is created if it is missing, and its files are replaced atomically. An object store is
    written to in a thread, for which the program waits ten seconds, and for a store that hangs half a minute
    in total.

    Args:
        target: a local directory, or a URI that MLflow can write artifacts to; the path of one of the two
            files stands for its directory. None or an empty string writes nothing.
    """

    def __init__(self, target: str | os.PathLike[str] | None) -> None:
        self._warned: set[str] = set()
        self._not_removed = ""  # why an earlier file is still there
        self._target: Target | None = None
        self._runs: dict[str, RunArtifacts] = {}
        if target is None or target == "":
            return
        try:
            self._target = open_target(target, STATUS_FILE, INFO_FILE)
        except ValueError as error:
            self._warn(STATUS_FILE, "status_path", _reason(error, str(target)))

    def write_status(self, status: JobStatus) -> None:
        """Replaces `mlflow_status.json`."""
        last = status.stage in _LAST_STAGES
        self._write(self._target, STATUS_FILE, lambda: status_document(status), last=last)

    def forget_info(self) -> None:
        """Removes the `mlflow_info.json` of an earlier program, which describes another run.

        A failure is reported once something can be written there: if nothing can, that is the one thing to
        know.
        """
        if self._target is None:
            return
        try:
            self._target.remove(INFO_FILE)
        except Exception as error:  # MLflow's, or of the library of the store
            reraise_interruption(error)
            self._not_removed = _reason(error, self._target.uri)

    def write_info(self, run: RunInfo, *, run_artifact: bool = False) -> None:
        """Replaces `mlflow_info.json`.

        Args:
            run: what it says.
            run_artifact: also makes it an artifact of that run, with or without a target.
        """
        last = run.ended_at is not None
        self._write(self._target, INFO_FILE, lambda: run_document(run), last=last)
        if run_artifact:
            artifacts = self._runs.setdefault(run.run_id, RunArtifacts(run.tracking_uri, run.run_id))
            self._write(artifacts, INFO_FILE, lambda: run_document(run), last=last)

    def _write(
        self, target: WritableTarget | None, name: str, document: Callable[[], dict[str, Any]], *, last: bool
    ) -> None:
        if target is None:
            return
        try:
            target.write(name, _json(document()), last=last)
        except Exception as error:  # MLflow's, or of the library of the store
            reraise_interruption(error)
            self._warn(name, target.shown, _reason(error, target.uri))
            return
        if self._not_removed and not isinstance(target, RunArtifacts):
            reason, self._not_removed = self._not_removed, ""
            if name != INFO_FILE:  # which has been replaced just now
                _logger.warning(
                    "mlflow-sysmetrics: %s at %s could not be removed and may describe an earlier run: %s",
                    INFO_FILE,
                    target.shown,
                    reason,
                )

    def _warn(self, name: str, where: str, reason: str) -> None:
        if where not in self._warned:
            self._warned.add(where)
            _logger.warning(
                "mlflow-sysmetrics: %s could not be written to %s: %s. The training continues without it.",
                name,
                where,
                reason.rstrip(". "),
            )


def read_status(path: str | os.PathLike[str]) -> JobStatus:
    """Returns the content of a `mlflow_status.json`; of a newer schema, the part that this version knows.

    Args:
        path: the file, its directory, or the URI of either.

    Raises:
        FileNotFoundError: there is no such file: no preflight has started, or its files go elsewhere.
        OSError: it could not be read.
        ValueError: it is not a status file.
    """
    text = os.fspath(path)
    name = _file_name(text)
    target = open_target(path, name)
    shown = f"{target.shown}/{name}"
    try:
        return status_from(json.loads(target.read(name)))
    except UnicodeDecodeError:
        raise ValueError(f"{shown} is not a status file: it must be UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{shown} is not a status file: it must be valid JSON ({error})") from None
    except ValueError as error:
        raise ValueError(f"{shown} is not a status file: {error}") from None


def _file_name(path: str) -> str:
    """Returns the name of the file: the last part of the path, or ours if that is a directory."""
    name = split_target(path)[1]
    is_file = name.endswith(".json") or Path(path).is_file()
    return name if is_file and not Path(path).is_dir() else STATUS_FILE


def _json(document: dict[str, Any]) -> str:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # File names that are not UTF-8 arrive as lone surrogates, which cannot be encoded.
    return text.encode("utf-8", "replace").decode("utf-8")


def _reason(error: BaseException, uri: str) -> str:
    """Returns the first line of an error's message, without secrets."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first, *_ = cleaned(text, uri).strip().splitlines() or [""]
    return shortened(first, _LONGEST_REASON) or type(error).__name__
