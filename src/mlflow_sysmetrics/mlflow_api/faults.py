"""What a tracking server, or the way to it, answered instead of what was asked; and whether waiting helps."""

from __future__ import annotations

from enum import Enum

from mlflow_sysmetrics.errors import SysMetricsError, Unavailable


class Cause(Enum):
    """Why something was not answered as asked. The value says it in words."""

    DOWN = "the server is not up, or busy"
    UNAUTHENTICATED = "the credentials are missing or wrong"
    FORBIDDEN = "the credentials are known, and do not suffice"
    WRONG_HOST = "the server does not know the name it was called by"
    NOT_MLFLOW = "something else than MLflow answers there"
    TLS = "no trust between the two ends"
    BAD_URI = "the address makes no sense"
    NO_DRIVER = "a Python package for this kind of address is not installed"
    BAD_DATABASE = "the database cannot be opened as it is"
    OLD_DATABASE = "the database was made by another version of MLflow"
    MISSING = "MLflow answers that there is no such thing"
    EXISTS = "MLflow answers that there is one already"
    REFUSED = "MLflow answers that it will not do this"
    NOT_READ_BACK = "what was written is not what is read"


class Fault(SysMetricsError):
    """Is what came back of one attempt, without secrets.

    Attributes:
        cause: why, as far as it can be told.
        status_code: of HTTP; None where no answer came.
        retry_after: seconds that the server asked to be left alone; None where it did not.
        remedy: what to do, where the place that found it knows better than the cause tells.
    """

    def __init__(
        self,
        reason: str,
        cause: Cause,
        *,
        status_code: int | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause
        self.status_code = status_code
        self.retry_after = retry_after
        self.remedy = remedy

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later, with nothing changed here."""
        return self.cause in {Cause.DOWN, Cause.NOT_READ_BACK}


class NoIdToken(Unavailable):
    """There is no ID token: says where it was looked for, and what to do. Has no token in it.

    Attributes:
        reason: where it was looked for, and what came back.
        remedy: what to do, as a sentence; None where that is not known.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason if remedy is None else f"{reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy
