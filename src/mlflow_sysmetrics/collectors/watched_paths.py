"""The directories whose filesystems and disks are watched: their names in the series, and readings of them.

A reading of a path on a network filesystem may never return once its server is gone, so each path is read in
a background thread.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Generic, NamedTuple, TypeVar

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_unread, words_for
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading

# MLflow takes keys of 250 characters, and a path component alone may have 255.
_LONGEST_NAME = 64


class WatchedPath(NamedTuple):
    """One directory to watch.

    Attributes:
        path: its absolute path.
        name: its part of the series' names; None for the working directory, whose series have plain names.
    """

    path: str
    name: str | None


def watched_paths(host: Host) -> tuple[list[WatchedPath], list[str]]:
    """Returns the working directory and the directories that the user named, and why some are missing.

    Paths are resolved once: the series does not follow a program that changes its directory.
    """
    gaps = []
    base = None
    try:
        base = host.working_directory()
    except OSError as error:
        gaps.append(f"the working directory does not exist ({words_for(error)})")
    further = []
    for path in host.disks:
        if base is None and not Path(path).is_absolute():
            gaps.append(f"{path} cannot be resolved without it: use an absolute path")
        else:
            further.append(os.path.normpath(Path(base or "", path)))
    further = [path for path in dict.fromkeys(further) if path != base]
    watched = [] if base is None else [WatchedPath(base, None)]
    return watched + [WatchedPath(*both) for both in zip(further, names(further), strict=True)], gaps


def names(paths: Sequence[str]) -> list[str]:
    """Returns one name per path: its last component, or as many as make it unique."""
    components = [[_cleaned(part) for part in PurePath(path).parts] for path in paths]
    depths = [1] * len(paths)
    while True:
        unique = ["_".join(parts[-depth:]) for parts, depth in zip(components, depths, strict=True)]
        count = Counter(unique)
        # The root, a path's first component, is part of a name only if it is the whole path.
        longer = [
            depth + 1 if count[name] > 1 and depth < len(parts) - 1 else depth
            for name, parts, depth in zip(unique, components, depths, strict=True)
        ]
        if longer == depths:
            return _numbered([name[-_LONGEST_NAME:] for name in unique])
        depths = longer


def _cleaned(component: str) -> str:
    r"""Returns a component in the letters that metric names allow: "/" is "root", "D:\" is "d"."""
    if component.endswith(("/", "\\")):
        return re.sub(r"[^a-z0-9]", "", component.lower()) or "root"
    return re.sub(r"[^a-z0-9]", "_", component.lower())


def _numbered(found: list[str]) -> list[str]:
    """Appends numbers to names that are equal even with the whole path: /a-b and /a_b."""
    used: set[str] = set()
    for index, name in enumerate(found):
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        found[index] = unique
        used.add(unique)
    return found


NO_ANSWER = "does not respond"  #: in the reason why a path has no values

Value = TypeVar("Value")

# Often enough to notice a filesystem that is mounted later, rarely enough to cost nothing.
LOOK_SECONDS = 60.0
# Enough for every filesystem that responds, an automounter too; only the first tick waits this long.
_FIRST_ANSWER_SECONDS = 0.25
# A local filesystem takes 0.1 ms, a nearby server 1 ms; later ticks wait this long for a new answer.
_NEXT_ANSWER_SECONDS = 5e-3
# How long the last answer stays valid.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answers(Generic[Value]):
    """Answers of the watched paths.

    Attributes:
        values: of the paths that respond.
        silent: by path, why the others do not respond.
    """

    values: dict[str, Value]
    silent: dict[str, str]


class PathReadings(Generic[Value]):
    """Reads each path in a separate thread.

    Args:
        purpose: part of the threads' names.
        paths: absolute paths.
        read: reads one path; raises OSError.
    """

    def __init__(self, purpose: str, paths: Iterable[str], read: Callable[[str], Value]) -> None:
        self._readings = {
            path: BackgroundReading(f"{purpose} {path}", partial(read, path), rest_seconds=0)
            for path in paths
        }

    def first(self) -> Answers[Value]:
        """Reads all paths, and waits a quarter of a second for slow ones."""
        return self._read(_FIRST_ANSWER_SECONDS)

    def next(self) -> Answers[Value]:
        """Reads all paths again; a path that does not respond at once keeps its previous answer."""
        return self._read(_NEXT_ANSWER_SECONDS)

    def _read(self, within: float) -> Answers[Value]:
        answers: Answers[Value] = Answers({}, {})
        until = time.monotonic() + within
        for background in self._readings.values():
            background.ask()
        for path, background in self._readings.items():
            try:
                reading = background.answer(within=max(until - time.monotonic(), 0.0))
            except (OSError, Unavailable) as error:
                answers.silent[path] = (
                    why_unread(error, path) if isinstance(error, OSError) else f"{path}: {error}"
                )
            else:
                if reading is None or background.waiting_seconds > _PATIENCE_SECONDS:
                    answers.silent[path] = f"{path} {NO_ANSWER}"
                else:
                    answers.values[path] = reading.value
        return answers
