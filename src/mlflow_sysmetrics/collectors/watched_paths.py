"""The directories whose filesystems and disks are watched, and the names that their series bear."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from mlflow_sysmetrics.machine.host import Host

# MLflow takes keys of 250 characters, and a path component alone may have 255.
_LONGEST_NAME = 64


class WatchedPath(NamedTuple):
    """One directory to watch.

    Attributes:
        path: where, as an absolute path.
        name: its part of the series' names; None for the working directory, whose series have plain names.
    """

    path: str
    name: str | None


def watched_paths(host: Host) -> tuple[list[WatchedPath], list[str]]:
    """Returns the working directory, then the further ones that the user named, and what of them is missing.

    They are as they are now: a program that changes its directory does not change its disk's curve.
    """
    gaps = []
    base = None
    try:
        base = host.working_directory()
    except OSError as error:
        gaps.append(f"the working directory is gone ({error.strerror or error})")
    further = []
    for path in host.disks:
        if base is None and not Path(path).is_absolute():
            gaps.append(f"{path} is relative to it; use an absolute path")
        else:
            further.append(os.path.normpath(Path(base or "", path)))
    further = [path for path in dict.fromkeys(further) if path != base]
    watched = [] if base is None else [WatchedPath(base, None)]
    return watched + [WatchedPath(*both) for both in zip(further, names(further), strict=True)], gaps


def names(paths: Sequence[str]) -> list[str]:
    """Returns one name per path: its last component, or more of them where two would be equal."""
    components = [[_cleaned(part) for part in PurePath(path).parts] for path in paths]
    depths = [1] * len(paths)
    while True:
        found = ["_".join(parts[-depth:]) for parts, depth in zip(components, depths, strict=True)]
        count = Counter(found)
        # The root, its first component, is part of a name only where it is all there is.
        longer = [
            depth + 1 if count[name] > 1 and depth < len(parts) - 1 else depth
            for name, parts, depth in zip(found, components, depths, strict=True)
        ]
        if longer == depths:
            return _numbered([name[-_LONGEST_NAME:] for name in found])
        depths = longer


def _cleaned(component: str) -> str:
    r"""Returns what the names of metrics may hold: "/" is "root", "D:\" is "d"."""
    if component.endswith(("/", "\\")):
        return re.sub(r"[^a-z0-9]", "", component.lower()) or "root"
    return re.sub(r"[^a-z0-9]", "_", component.lower())


def _numbered(found: list[str]) -> list[str]:
    """Returns the names with a number after those that even whole paths do not tell apart: /a-b and /a_b."""
    used: set[str] = set()
    for index, name in enumerate(found):
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        found[index] = unique
        used.add(unique)
    return found
