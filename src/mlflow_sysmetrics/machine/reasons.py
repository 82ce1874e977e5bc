"""Why a source cannot be used, in words: no messages of Python's, no error numbers, no bytes."""

from __future__ import annotations

from mlflow_sysmetrics.errors import SysMetricsError

_MOST_QUOTED = 40


class Malformed(SysMetricsError, ValueError):
    """A source contains something else than expected: says what, in words. Internal.

    Attributes:
        finding: what is wrong, as a clause: '"x" is not a count', "/proc/meminfo has no MemTotal".
    """

    def __init__(self, finding: str) -> None:
        super().__init__(finding)
        self.finding = finding


def why_unread(error: OSError | ValueError, source: str = "") -> str:
    """Returns why a source cannot be used, as a clause: "/proc/stat: No such file or directory".

    Args:
        error: raised by reading or parsing it.
        source: the file or library, for an error that does not name it.
    """
    if isinstance(error, OSError):
        source = source or error.filename or ""
    reason = words_for(error)
    return f"{source}: {reason}" if source else reason


def words_for(error: OSError | ValueError) -> str:
    """Returns what is wrong, without error numbers, the name of a file, and messages of Python's."""
    if isinstance(error, Malformed):
        return error.finding
    if isinstance(error, OSError):
        return error.strerror or str(error) or "the system reports an error without a name"
    return "something else than expected"


def quoted(text: bytes | str) -> str:
    """Returns the beginning of a text for a message: in quotes, or a word for an empty one."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            return "something that is not text"
    shown = " ".join("".join(one if one.isprintable() else " " for one in text[:_MOST_QUOTED]).split())
    more = "..." if len(text.strip()) > _MOST_QUOTED else ""
    return f'"{shown}{more}"' if shown else "nothing"


def why_refused(function: str, error: Exception) -> str:
    """Returns why a function of psutil has no answer: "psutil.cpu_times: no permission"."""
    return f"psutil.{function}: {refusal(error)}"


def refusal(error: Exception) -> str:
    """Returns what is wrong, without messages of Python's: psutil's name processes, not reasons."""
    import psutil  # late: the collectors of Linux do without it

    if isinstance(error, psutil.AccessDenied):
        return "no permission"
    if isinstance(error, psutil.NoSuchProcess):  # a zombie too
        return "the process has ended"
    return words_for(error) if isinstance(error, OSError) else "not supported on this machine"
