"""What a failed request to a tracking server means, as one exception with one cause."""

from __future__ import annotations

from enum import Enum

from mlflow_sysmetrics.errors import SysMetricsError, Unavailable


class Cause(Enum):
    """Why a request failed. The value describes it in words."""

    DOWN = "the server is not reachable, or busy"
    UNAUTHENTICATED = "the credentials are missing or wrong"
    FORBIDDEN = "the credentials are valid but not sufficient"
    PROXY = "a proxy in between asks for credentials"
    WRONG_HOST = "the server does not accept the host name of the request"
    NOT_MLFLOW = "the answer is not MLflow's"
    TLS = "the TLS handshake failed"
    BAD_URI = "the address is malformed"
    NO_DRIVER = "the Python package for this kind of address is not installed"
    BAD_DATABASE = "the database cannot be opened as it is"
    OLD_DATABASE = "another version of MLflow created the database"
    MISSING = "MLflow has no such object"
    DELETED = "the run or its experiment is deleted"
    EXISTS = "MLflow has such an object already"
    POINT_EXISTS = "a point of the batch is stored already"
    TOO_LARGE = "the request, or a value in it, is too large"
    REFUSED = "MLflow refuses the request as invalid"
    FAILED = "MLflow answers with an error that can have many reasons"
    NOT_READ_BACK = "what was written is not what is read"


_CREDENTIALS = frozenset({Cause.UNAUTHENTICATED, Cause.FORBIDDEN, Cause.WRONG_HOST})
_UNREADABLE = frozenset({400, 422})  # a firewall that dislikes what it reads in a request answers so, too
_RUN_REFUSED = frozenset({Cause.MISSING, Cause.REFUSED, Cause.DELETED})


class Fault(SysMetricsError):
    """One failed request. Its text holds no secrets.

    Attributes:
        cause: why it failed, as far as is known.
        status_code: HTTP status; None if no answer came.
        error_code: MLflow's name of the error; of an exception only if it decided the cause.
        retry_after: seconds that the server asked to wait; None if it did not ask.
        remedy: what to do, if the code that raised this knows more than the cause says.
        is_internal: whether the server answered, and reports that it failed at this request.
        is_local: whether the request failed before any server was asked, as for a value of a wrong type.
    """

    def __init__(
        self,
        reason: str,
        cause: Cause,
        *,
        status_code: int | None = None,
        error_code: str | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
        is_internal: bool = False,
        is_local: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause
        self.status_code = status_code
        self.error_code = error_code
        self.retry_after = retry_after
        self.remedy = remedy
        self.is_internal = is_internal
        self.is_local = is_local

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later with nothing changed here."""
        return self.cause in {Cause.DOWN, Cause.NOT_READ_BACK}

    @property
    def refuses_credentials(self) -> bool:
        """Whether the server itself refused the credentials: they have to be changed.

        Credentials that could not be obtained, as from a metadata server, may be there a second later.
        """
        return self.cause in _CREDENTIALS and (self.status_code is not None or self.error_code is not None)

    @property
    def refuses_run(self) -> bool:
        """Whether MLflow's own answer says that the run will never accept the points.

        Only MLflow's name of the error proves that. A proxy's 404 or a wrapped exception does not.
        """
        return self.cause in _RUN_REFUSED and self.error_code is not None

    @property
    def is_about_size(self) -> bool:
        """Whether the request, or a value in it, is too large."""
        return self.cause is Cause.TOO_LARGE

    @property
    def refuses_content(self) -> bool:
        """Whether MLflow itself says that something in the request is invalid: the run, a point, a tag."""
        return self.cause in {Cause.REFUSED, Cause.TOO_LARGE} and self.error_code is not None

    @property
    def may_concern_content(self) -> bool:
        """Whether a point or a tag of the request may be the reason, as well as the server or a proxy."""
        return (
            self.is_internal
            or self.is_local
            or self.cause in {Cause.TOO_LARGE, Cause.FAILED}
            or (self.cause is Cause.NOT_MLFLOW and self.status_code in _UNREADABLE)
        )

    @property
    def concerns_server(self) -> bool:
        """Whether other requests to the server would fail as well, as far as is known."""
        return not self.is_local and self.cause is not Cause.POINT_EXISTS

    @property
    def run_is_deleted(self) -> bool:
        """Whether the server has the run and it is deleted. A server that never had the run cannot say so."""
        return self.refuses_run and self.cause is Cause.DELETED


class NoIdToken(Unavailable):
    """No ID token could be obtained: says which sources were tried, and what to do. Never quotes a token.

    Attributes:
        reason: which sources were tried, and what each answered.
        remedy: what to do, as a sentence; None if unknown.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason if remedy is None else f"{reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy
