"""Checkpoints on disk: the best weights, and all that it takes to go on."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mlflow_sysmetrics.training.trainer.resume import BEST, LATEST

_logger = logging.getLogger("mlflow_sysmetrics")


class Checkpoints:
    """Writes and reads the checkpoints of one training.

    Args:
        directory: where to; None is a temporary one, in which only the best is kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self.lasting = directory is not None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory or Path(tempfile.mkdtemp(prefix="mlflow-sysmetrics-checkpoints-"))

    @property
    def best(self) -> Path:
        """Where the best weights are, if there are any."""
        return self.directory / BEST

    def save_best(self, state: Mapping[str, Any]) -> bool:
        """Writes the best checkpoint; returns whether that worked, and warns where it did not."""
        return self._save(self.best, state)

    def save_latest(self, state: Mapping[str, Any]) -> bool:
        """Writes what it takes to go on, where it is to last; as `save_best`."""
        return not self.lasting or self._save(self.directory / LATEST, state)

    def try_out(self, state: Mapping[str, Any]) -> None:
        """Writes the first checkpoint, before anything else is done.

        Raises:
            OSError: the directory cannot be written to.
        """
        if self.lasting:
            _write(self.directory / LATEST, state)

    def load_latest(self) -> dict[str, Any] | None:
        """Returns what it takes to go on; None where there is nothing to go on from.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.directory / LATEST
        return _read(path) if self.lasting and path.exists() else None

    def load_best(self) -> dict[str, Any] | None:
        """Returns the best checkpoint; None where there is none."""
        return _read(self.best) if self.best.exists() else None

    def forget(self) -> None:
        """Removes the checkpoints of a training that is not gone on with."""
        for name in (BEST, LATEST):
            (self.directory / name).unlink(missing_ok=True)

    def remove_temporary(self) -> None:
        """Removes the directory, if it was a temporary one."""
        if not self.lasting:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _save(self, path: Path, state: Mapping[str, Any]) -> bool:
        try:
            _write(path, state)
        except (OSError, RuntimeError) as error:  # a full disk; torch's writer says so with a RuntimeError
            _logger.warning(
                "mlflow-sysmetrics: %s could not be written, the training goes on without: %s", path, error
            )
            return False
        return True


def _write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all, also if the process or the machine dies meanwhile."""
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:  # whatever ends the writing, Ctrl-C too, leaves no half file; it is raised on
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch's unpickler raises whatever it trips over
        raise ValueError(
            f"{path} is no checkpoint that can be read; move it away to begin anew: {error}"
        ) from error
    return found
