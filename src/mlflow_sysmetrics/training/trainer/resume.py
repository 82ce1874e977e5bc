"""The run of a training: its own if none is active, or the resumed one, and what is recorded on it already.

Imports without torch.

A checkpoint is written at the end of an epoch; a process that is killed has recorded steps after that.
These are trained again, with other durations and, on a GPU, perhaps other losses. If they were recorded
again, a step would have two values. So a file beside the checkpoint notes what is recorded, before it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.active_runs import active_run_id, chosen_run_id
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FINISHED, KILLED
from mlflow_sysmetrics.preflight.api import status_of
from mlflow_sysmetrics.runtime.local_paths import local_directory

BEST, LATEST, RECORDED = "best_checkpoint.pt", "latest_checkpoint.pt", "recorded.txt"
_FIELDS = 4  # of Extent
_logger = logging.getLogger("mlflow_sysmetrics")


class Extent(NamedTuple):
    """How far a training is recorded.

    Attributes:
        run_id: the run.
        step: the last recorded step.
        epoch: the last recorded epoch.
        final: the step of the recorded summary; 0 if there is none.
    """

    run_id: str
    step: int = 0
    epoch: int = 0
    final: int = 0


def run_to_resume(save_dir: str | os.PathLike[str]) -> str | None:
    """Returns the id of the run whose training can be resumed from a directory, or None if there is none.

    Pass it to `mlflow.start_run(run_id=...)`, so that a restarted job continues its own run.

    Args:
        save_dir: the `save_dir` of `Trainer`.

    Raises:
        TypeError: `save_dir` is not a path.
        ValueError: it does not name a directory of this machine.
    """
    directory = local_directory("save_dir", save_dir)
    extent = read_extent(directory)
    return extent.run_id if extent is not None and (directory / LATEST).exists() else None


def chosen_run(run_id: str | None, directory: Path | None, *, resume: bool) -> str:
    """Returns the id of the run that a training records to.

    Args:
        run_id: the id that the user passed, if any; otherwise the active run of this thread is used, or else
            the run to resume.
        directory: directory of the checkpoints.
        resume: whether to resume from them.

    Raises:
        NoActiveRunError: no id was passed, no run is active, and there is nothing to resume.
        ValueError: the directory belongs to a different run.
    """
    resumable = run_to_resume(directory) if resume and directory is not None else None
    if resumable is None:
        return chosen_run_id(run_id, by="Trainer.train()")
    wanted = run_id or active_run_id() or resumable
    if wanted != resumable:
        raise ValueError(
            f"save_dir={str(directory)!r} must belong to run {wanted}, but it holds the training of run "
            f"{resumable}. To resume that, use mlflow.start_run(run_id=run_to_resume(save_dir)), which "
            "starts a new run if there is nothing to resume; to start afresh, pass resume=False or another "
            "save_dir"
        )
    return resumable


def read_extent(directory: Path) -> Extent | None:
    """Returns how far the training in a directory is recorded, or None if that is unknown."""
    try:
        words = (directory / RECORDED).read_text(encoding="ascii").split()
        return Extent(words[0], *map(int, words[1:])) if len(words) == _FIELDS else None
    except (OSError, ValueError) as error:
        reraise_interruption(error)
        return None


class Recorded:
    """Keeps note of how far a training is recorded, in a file that survives the process.

    Args:
        directory: where the file is; None keeps no note.
        extent: how far it is recorded already.
    """

    def __init__(self, directory: Path | None, extent: Extent) -> None:
        self.extent = extent
        self._file: FileIO | None = None
        if directory is not None:
            path = directory / RECORDED
            path.touch()
            self._file = FileIO(path, "r+")
            self._note()
            self._file.truncate()  # the rest of a longer line, of a run with a longer id

    def note(self, *, step: int = 0, epoch: int = 0, final: int = 0) -> None:
        """Notes a step, epoch or summary; for a step, before it is recorded."""
        before = self.extent
        self.extent = Extent(
            before.run_id, max(before.step, step), max(before.epoch, epoch), max(before.final, final)
        )
        if self.extent != before:
            self._note()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _note(self) -> None:
        if self._file is None:
            return
        run_id, *numbers = self.extent
        line = " ".join([run_id, *(f"{number:>15}" for number in numbers)])
        # A single short write, so that a killed process leaves either the old or the new line. If the disk is
        # full, a resumed training may record a few steps twice, which is no reason to end this one.
        try:
            self._file.seek(0)
            self._file.write(f"{line}\n".encode("ascii"))
        except OSError as error:
            reraise_interruption(error)


@contextmanager
def run_if_none_is_active(run_id: str | None, directory: Path | None, *, resume: bool) -> Iterator[None]:
    """Keeps a run active inside the ``with`` block: the user's, or else one of the training's own.

    A run of its own ends with the block: FINISHED, FAILED after an exception, KILLED after Ctrl-C or if the
    trial was pruned. It continues the run of the checkpoints, if there is one.

    Args:
        run_id: the run that the user named; nothing is started then.
        directory: directory of the checkpoints.
        resume: whether to resume from them.
    """
    if run_id is not None or active_run_id() is not None:
        yield
        return
    import mlflow

    resumed = run_to_resume(directory) if resume and directory is not None else None
    run = mlflow.start_run(run_id=resumed)
    try:
        yield
    except BaseException as error:  # Ctrl-C, too
        _end(run.info.run_id, KILLED if type(error).__name__ == "TrialPruned" else status_of(error))
        raise
    _end(run.info.run_id, FINISHED)


def _end(run_id: str, status: str) -> None:
    if run_id not in fluent_state.active_run_ids():
        return  # the program has ended it itself
    try:
        active_runs.end_run(run_id, status)
    except Exception as error:  # noqa: BLE001 - MLflow's or its store's; must not hide the training's end
        reraise_interruption(error)
        _logger.warning("mlflow-sysmetrics: run %s may be left RUNNING: %s", run_id, cleaned(str(error)))
