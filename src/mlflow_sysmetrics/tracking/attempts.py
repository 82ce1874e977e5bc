"""One try at a tracking server, as errors and status files list it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """Says when the server was tried, and what came back.

    Attributes:
        n: which one it is within its step, from 1.
        step: of the preflight, 0 to 4.
        at: when it began, in UTC.
        seconds: how long it took.
        status_code: of HTTP; None where no answer came, or the store does not speak HTTP.
        error: what went wrong, in one line without secrets; None where it succeeded.
    """

    n: int
    step: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None
