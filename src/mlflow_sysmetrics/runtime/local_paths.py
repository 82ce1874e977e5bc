"""Directories that a program passes to us: the home directory expanded, URIs refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

# At least two letters: a drive of Windows is no scheme. A single slash: pathlib has removed the other, and
# dbfs:/ and runs:/ have only one.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


def local_directory(argument: str, value: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a directory on this machine, which may not exist.

    ``~`` is the home directory, and ``file:///path`` is accepted.

    Args:
        argument: name of the argument, for messages.
        value: the directory.

    Raises:
        TypeError: `value` is not a path.
        ValueError: `value` is empty, is a URI, or names a home directory that is unknown.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{argument} must be a string or a path, got {value!r}")
    text = os.fspath(value)
    if not text.strip():
        raise ValueError(f"{argument} must name a directory, got {text!r}")
    if text.lower().startswith("file:///"):
        text = unquote(urlsplit(text).path)
    if _URI.match(text):
        raise ValueError(
            f"{argument} must be a directory of this machine, got the URI {text!r}. Mount the store, "
            "for example with a FUSE driver or as a volume, and pass the directory where it is mounted"
        )
    expanded = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises if there is no home directory
    if expanded.startswith("~"):
        raise ValueError(
            f"{argument} must be a directory whose home directory is known, got {text!r}. Set HOME, or pass "
            "an absolute path (./~name for a directory with such a name)"
        )
    return Path(expanded).absolute()
