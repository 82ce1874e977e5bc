"""The end of a log file."""

from __future__ import annotations

from pathlib import Path

from mlflow_sysmetrics.tracking.secrets import cleaned

_LINES = 25
_BYTES = 16_384  # of a log that is one endless line


def log_tail(path: Path, begin: int, *uris: str) -> str:
    """Returns the last lines of a log, without passwords; empty where there is none.

    Args:
        path: of the log.
        begin: where in the file it begins: what stands before is of an earlier start.
        uris: with passwords that the log may quote.
    """
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(begin, size - _BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    for uri in uris:
        text = cleaned(text, uri)
    return "\n".join(text.strip().splitlines()[-_LINES:])
