"""Onto which run a training goes on, and from where on it has not been recorded yet. Needs no torch.

A checkpoint is of the end of an epoch; a process that is killed has recorded steps after it. When these are
done again they take another time, and on a GPU they may have another loss: recorded again, a step would have
two values. So what has been recorded is noted beside the checkpoint, before it is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from mlflow_sysmetrics.training.runs import active_run_id, chosen_run_id

BEST, LATEST, RECORDED = "best_checkpoint.pt", "latest_checkpoint.pt", "recorded.txt"
_WORDS = 4


class Extent(NamedTuple):
    """How far a training has been recorded.

    Attributes:
        run_id: the run.
        step: the last step.
        epoch: the last epoch.
        final: the step of the summary; 0 where there is none.
    """

    run_id: str
    step: int = 0
    epoch: int = 0
    final: int = 0


def run_to_resume(save_dir: str | os.PathLike[str]) -> str | None:
    """Returns the run whose training can go on from a directory; None where it begins anew.

    What `mlflow.start_run(run_id=...)` takes: a job that is started again goes on with its own run.

    Args:
        save_dir: as of `Trainer`.
    """
    found = read_extent(Path(save_dir))
    return found.run_id if found is not None and Path(save_dir, LATEST).exists() else None


def chosen_run(run_id: str | None, directory: Path | None, *, resume: bool) -> str:
    """Returns the run that a training records to: the one that its directory belongs to, if there is one.

    Args:
        run_id: the run that was named, if any; else it is the one that is active in this thread.
        directory: where the checkpoints are.
        resume: whether to go on from what is there.

    Raises:
        NoActiveRunError: none was named, none is active, and there is nothing to go on from.
        ValueError: the directory belongs to another run than that which was named or is active.
    """
    found = run_to_resume(directory) if resume and directory is not None else None
    if found is None:
        return chosen_run_id(run_id, by="Trainer.train()")
    wanted = run_id or active_run_id() or found
    if wanted != found:
        raise ValueError(
            f"save_dir={str(directory)!r} holds the training of run {found}, and this is run {wanted}. "
            "To go on with that one: mlflow.start_run(run_id=run_to_resume(save_dir)), which makes a new one "
            "where there is nothing to resume. To begin anew there: resume=False. Or choose another save_dir"
        )
    return found


def read_extent(directory: Path) -> Extent | None:
    """Returns how far the training in a directory has been recorded; None where that is not noted."""
    try:
        words = (directory / RECORDED).read_text(encoding="ascii").split()
        return Extent(words[0], *map(int, words[1:])) if len(words) == _WORDS else None
    except (OSError, ValueError):
        return None


class Recorded:
    """Notes how far a training has been recorded, in a file that survives the process.

    Args:
        directory: where; None notes nothing.
        extent: what has been recorded already.
    """

    def __init__(self, directory: Path | None, extent: Extent) -> None:
        self.extent = extent
        self._file: FileIO | None = None
        if directory is not None:
            path = directory / RECORDED
            path.touch()
            self._file = FileIO(path, "r+")
            self._note()
            self._file.truncate()  # what a run with a longer id has left

    def note(self, *, step: int = 0, epoch: int = 0, final: int = 0) -> None:
        """Notes what is about to be recorded, or has been; what was noted before stays."""
        before = self.extent
        self.extent = Extent(
            before.run_id, max(before.step, step), max(before.epoch, epoch), max(before.final, final)
        )
        if self.extent != before:
            self._note()

    def close(self) -> None:
        """Notes nothing more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _note(self) -> None:
        if self._file is None:
            return
        run_id, *numbers = self.extent
        line = " ".join([run_id, *(f"{number:>15}" for number in numbers)])
        # One short write, which a process that is killed has done or has not. On a disk that does not take it
        # a training that is resumed records a few steps twice: no reason to end this one.
        with suppress(OSError):
            self._file.seek(0)
            self._file.write(f"{line}\n".encode("ascii"))
