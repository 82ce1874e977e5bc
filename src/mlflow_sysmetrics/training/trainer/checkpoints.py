"""Checkpoints: the best weights, and the complete state for resuming; on disk, and on the run."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded
from mlflow_sysmetrics.training.trainer.plain_state import from_plain, to_plain
from mlflow_sysmetrics.training.trainer.resume import BEST, LATEST

_FOLDER = "checkpoints"
# A running server answers within this time. MLflow would retry one that is down for minutes, at the end of
# every trial of a study.
_ANSWER_SECONDS = 10.0

_logger = logging.getLogger("mlflow_sysmetrics")


class Checkpoints:
    """Writes and reads the checkpoints of one training.

    Args:
        directory: where they are; None uses a temporary directory that holds the best one only.
    """

    def __init__(self, directory: Path | None) -> None:
        self.lasting = directory is not None
        self._read_back: set[Path] = set()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory or Path(tempfile.mkdtemp(prefix="mlflow-sysmetrics-checkpoints-"))

    @property
    def best(self) -> Path:
        """Path of the best checkpoint, which may not exist."""
        return self.directory / BEST

    def save_best(self, state: Mapping[str, Any]) -> bool:
        """Writes the best checkpoint; returns whether that succeeded, and warns if not."""
        return self._save(self.best, state)

    def save_latest(self, state: Mapping[str, Any]) -> bool:
        """Writes the state for resuming, if the directory is not temporary; returns as `save_best`."""
        return not self.lasting or self._save(self.directory / LATEST, state)

    def try_out(self, state: Mapping[str, Any]) -> None:
        """Writes the first checkpoint and reads it back, to find out early if either is impossible.

        Raises:
            OSError: the directory cannot be written to.
            ValueError: the state holds a value that cannot be written or read back.
        """
        if not self.lasting:
            return
        path = self.directory / LATEST
        try:
            _write(path, state)
            _load(path, mapped=True)
        except (OSError, RuntimeError):  # on a full disk, torch raises RuntimeError
            raise
        except Exception as error:  # pickle and torch's unpickler raise many types
            reraise_interruption(error)
            path.unlink(missing_ok=True)
            raise ValueError(
                f"{_unreadable(state)}. Convert that value, or pass save_dir=None to train without resuming"
            ) from error

    def load_latest(self) -> dict[str, Any] | None:
        """Returns the state for resuming, or None if there is none.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.directory / LATEST
        return _read(path) if self.lasting and path.exists() else None

    def load_best(self) -> dict[str, Any] | None:
        """Returns the best checkpoint, or None if there is none."""
        return _read(self.best) if self.best.exists() else None

    def forget(self) -> None:
        """Removes the checkpoints of a training that is not resumed."""
        for name in (BEST, LATEST):
            (self.directory / name).unlink(missing_ok=True)

    def remove_temporary(self) -> None:
        """Removes the directory if it is temporary."""
        if not self.lasting:
            shutil.rmtree(self.directory, ignore_errors=True)

    def keep(self) -> None:
        """Keeps the directory, even if it is temporary."""
        self.lasting = True

    def _save(self, path: Path, state: Mapping[str, Any]) -> bool:
        try:
            _write(path, state)
        except Exception as error:  # noqa: BLE001 - a full disk, or what pickle raises for a value of the user's
            reraise_interruption(error)
            _logger.warning(
                "mlflow-sysmetrics: cannot write %s, training continues without it: %s", path, error
            )
            return False
        self._check_once(path, state)
        return True

    def _check_once(self, path: Path, state: Mapping[str, Any]) -> None:
        """Reads the first file of each name back: an optimizer has most of its state after the first step."""
        if path in self._read_back:
            return
        self._read_back.add(path)
        try:
            _load(path, mapped=True)
        except (OSError, ValueError) as error:
            reraise_interruption(error)
            _logger.warning("mlflow-sysmetrics: %s cannot be used later: %s", path, _unreadable(state))


def _write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a file completely or not at all, even if the process or the machine dies meanwhile."""
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as file:
            torch.save(to_plain(state), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:  # Ctrl-C, too: leave no partial file
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _read(path: Path) -> dict[str, Any]:
    """Returns the state in a file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it does not hold a state that can be read.
    """
    return from_plain(_load(path))


def _load(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except Exception as error:  # torch's unpickler raises many types
        reraise_interruption(error)
        raise ValueError(
            f"cannot read the checkpoint {path}; move it away to start afresh: {error}"
        ) from error
    return state


def _unreadable(state: Mapping[str, Any]) -> str:
    """Returns which parts of a state cannot be read back, and why."""
    parts = ", ".join(name for name, value in state.items() if not _survives(value)) or "the state"
    return (
        f"{parts} must consist of tensors, arrays, numbers, texts, lists and dicts to be readable in a "
        "checkpoint, but has a value of another type (from get_extra_state() of the model, or state_dict() "
        "of the optimizer or scheduler)"
    )


def _survives(value: object) -> bool:
    """Returns whether a value can be read back."""
    with io.BytesIO() as file:
        try:
            torch.save(to_plain({"value": value}), file)
            file.seek(0)
            torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - pickle and torch's unpickler raise many types
            reraise_interruption(error)
            return False
    return True


def random_states(device: torch.device, loaders: Sequence[object]) -> dict[str, Any]:
    """Returns the states of Python's, NumPy's and torch's random generators, and of those of the loaders.

    They consist of tensors and plain values, so that torch can load them with ``weights_only=True``.
    """
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = (name, keys.tolist(), *rest)
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state_all()
    states["loaders"] = [generator.get_state() for generator in _generators(loaders)]
    return states


def restore(states: Mapping[str, Any], device: torch.device, loaders: Sequence[object]) -> None:
    """Restores the states that `random_states` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    torch.set_rng_state(states["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in states:
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, keys, *rest))
    # With a different number of GPUs, states cannot be matched to devices.
    if device.type == "cuda" and len(states.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    for generator, state in zip(_generators(loaders), states["loaders"], strict=False):
        generator.set_state(state)


def _generators(loaders: Sequence[object]) -> Iterator[torch.Generator]:
    for loader in loaders:
        sampler = getattr(loader, "sampler", None)
        for owner in (loader, sampler, getattr(loader, "batch_sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                yield generator


def upload(path: Path, tracking_uri: str, run_id: str, seconds: float) -> bool:
    """Logs a file to the artifact folder ``checkpoints`` of a run; returns whether that succeeded.

    A failure is a warning with the command that logs the file later; the file stays where it is.

    Args:
        path: the file.
        tracking_uri: tracking server of the run.
        run_id: the run.
        seconds: longest time for the file, once the server has answered.
    """
    late = f"no answer within {_ANSWER_SECONDS:g} s"
    try:
        client = bounded(lambda: _reached(tracking_uri, run_id), _ANSWER_SECONDS, name="sysmetrics-upload")
        late = f"not finished after {seconds:g} s"
        bounded(lambda: client.log_artifact(run_id, str(path), _FOLDER), seconds, name="sysmetrics-upload")
    except CallTimeout:
        reason = late
    except Exception as error:  # noqa: BLE001 - of MLflow, its store, or an object store's library
        reraise_interruption(error)
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
        _FOLDER,
    )
    return False


def _reached(tracking_uri: str, run_id: str) -> Any:
    """Returns a client of a server that has answered a request about the run."""
    client = open_client(tracking_uri)
    client.get_run(run_id)
    return client
