"""Google ID tokens for MLflow's requests: a tracking server on Cloud Run, or behind an identity-aware proxy.

Enabled by MLFLOW_TRACKING_AUTH=google-id-token. Each request gets a token for the server that it goes to, or
for MLFLOW_TRACKING_AUDIENCE (the client id of a proxy, a custom audience of a service). Tokens live for an
hour and a training may last for days, so they are fetched again before they expire.

MLflow loads this module at its first request with an auth plugin, so requests is loaded already.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from requests.auth import AuthBase

from mlflow_sysmetrics.errors import Unavailable, shortened
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.machine.command import CommandFailed, Commands
from mlflow_sysmetrics.mlflow_api.faults import NoIdToken
from mlflow_sysmetrics.mlflow_api.secrets import cleaned, remember_credentials

NAME = "google-id-token"
AUDIENCE = "MLFLOW_TRACKING_AUDIENCE"
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
# A token is fetched again when it has less than this left. Google's metadata server returns the same token
# until four minutes before its expiry, so asking earlier is useless; google-auth has this number too.
REFRESH_SECONDS = 225.0

_PORTS = {"http": 80, "https": 443}
# A new token is used for at least this long, whatever this machine's clock says about it.
_SHORTEST_USE_SECONDS = 30.0
# A failure is reported again for this long without another attempt: attempts take seconds, and many threads
# may ask.
_MOST_KEPT = 64  # tokens: a program may have any number of servers, one audience each
_FAILURE_SECONDS = 5.0
# google-auth waits 120 s for Google, and three times 3 s for a metadata server: a request would hang.
_ANSWER_SECONDS = 10.0
# A laptop has no metadata server, and its network drops the request; gcloud is tried next.
_HASTY_SECONDS = 1.0
# gcloud starts its own Python and asks Google: 1 to 3 s, longer on a cold disk. At most two calls.
_GCLOUD_SECONDS = 15.0
# A request that hangs holds up its own thread only: the others try again later, as after any failure.
_LONGEST_WAIT_SECONDS = 10.0
_LONGEST_REASON = 300  # the address of a metadata server takes half of it

_REMEDY = (
    "On Google Cloud, run as a service account; elsewhere set GOOGLE_APPLICATION_CREDENTIALS to the key file "
    "of a service account, or on a laptop run: gcloud auth login."
)


class GoogleIdTokenAuthProvider:
    """The `mlflow.request_auth_provider` entry point.

    It has the methods of MLflow's `RequestAuthProvider`, which are the same in every MLflow 2 and 3 that has
    auth plugins. It does not inherit from it, because inspecting this package must not import MLflow.
    """

    def get_name(self) -> str:
        """Returns the value of MLFLOW_TRACKING_AUTH that selects this provider."""
        return NAME

    def get_auth(self) -> AuthBase:
        """Returns the object that adds a token to a request. MLflow asks for each request."""
        return GoogleIdTokenAuth(_id_tokens)


class GoogleIdTokenAuth(AuthBase):  # type: ignore[misc]
    """Adds a Google ID token to a request, in place of any other Authorization."""

    def __init__(self, id_tokens: IdTokens) -> None:
        self._id_tokens = id_tokens

    def __call__(self, request: Any) -> Any:
        """Returns the request with a token.

        Raises:
            NoIdToken: no source has a token; says which were tried, and what to do.
        """
        audience = os.environ.get(AUDIENCE, "").strip() or origin(request.url)
        request.headers["Authorization"] = f"Bearer {self._id_tokens.token(audience)}"
        return request


def origin(url: str) -> str:
    """Returns the part of a URL that names the server, which Cloud Run accepts as an audience.

    The URL is the request's and not MLflow's current tracking URI, which a client with its own URI does not
    use: no server may see a token that another server would accept.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class _Kept:
    """A token, its expiry, and when it is fetched again, in seconds since 1970."""

    text: str
    ends_at: float
    refresh_at: float


class IdTokens:
    """A cache of ID tokens, one per audience. Thread-safe.

    One thread fetches the token of an audience; the others continue with the current one, and wait, for a
    bounded time, only if there is none.

    Args:
        fetch: returns a new token for an audience, or raises `NoIdToken`.
        clock: seconds since 1970, the unit of a token's expiry.
        wait_seconds: the longest wait for a token that another thread fetches.
    """

    def __init__(
        self,
        fetch: Callable[[str], str],
        clock: Callable[[], float] = time.time,
        wait_seconds: float = _LONGEST_WAIT_SECONDS,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, tuple[str, str | None, float]] = {}
        self._fetching: dict[str, threading.Lock] = {}

    def token(self, audience: str) -> str:
        """Returns a token for an audience.

        Raises:
            NoIdToken: no source has one.
        """
        kept = self._kept.get(audience)
        now = self._clock()
        if kept is not None and now < kept.refresh_at:
            return kept.text
        good = kept.text if kept is not None and now < kept.ends_at else None
        fetching = self._fetching.setdefault(audience, threading.Lock())
        if not fetching.acquire(timeout=self._wait_seconds if good is None else 0):
            if good is None:
                raise NoIdToken(
                    f"another thread has been waiting for an ID token for {self._wait_seconds:g} s"
                )
            return good
        try:
            return self._fetched(audience)
        except NoIdToken:
            if good is None:
                raise
            return good  # it is valid for minutes, in which the next attempt may succeed
        finally:
            fetching.release()

    def _fetched(self, audience: str) -> str:
        """Returns a new token, or the one that another thread has fetched meanwhile."""
        kept = self._kept.get(audience)
        now = self._clock()
        if kept is not None and now < kept.refresh_at:
            return kept.text
        reason, remedy, failed_at = self._failed.get(audience, ("", None, 0.0))
        if reason and 0 <= now - failed_at < _FAILURE_SECONDS:
            raise NoIdToken(reason, remedy)
        try:
            text = self._fetch(audience)
            remember_credentials(None, None, text)
            ends_at = end_of(text)
        except NoIdToken as error:
            if len(self._failed) >= _MOST_KEPT:
                self._failed.clear()
            self._failed[audience] = error.reason, error.remedy, self._clock()
            raise
        self._failed.pop(audience, None)
        refresh_at = max(ends_at - REFRESH_SECONDS, self._clock() + _SHORTEST_USE_SECONDS)
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[audience] = _Kept(text, max(ends_at, refresh_at), refresh_at)
        return text

    def after_fork(self) -> None:
        """Drops the locks in a forked child: a thread that does not exist here may hold the parent's."""
        self._fetching = {}


def end_of(token: str) -> float:
    """Returns when a JSON Web Token expires, in seconds since 1970.

    Raises:
        NoIdToken: the text is not such a token.
    """
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        pass
    # Outside the handler: the text may be a secret, and the errors above quote it.
    raise NoIdToken("The answer is not a Google ID token (it is not shown, because it may be a secret)")


def fetch_id_token(audience: str) -> str:
    """Returns a new token: of the service account of the key file or of the machine, or of gcloud's user.

    Raises:
        NoIdToken: none of them has one; says why for each, and what to do.
    """
    try:
        return from_google_auth(audience)
    except Unavailable as error:
        without_google_auth = str(error)
    try:
        return from_gcloud(audience)
    except Unavailable as error:
        without_gcloud = str(error)
    # Outside the handler: the errors behind these reasons may quote Google's answer.
    reasons = f"google-auth: {without_google_auth}; gcloud: {without_gcloud}"
    raise NoIdToken(f"There is no Google ID token for {audience} ({reasons})", _REMEDY)


def from_google_auth(audience: str) -> str:
    """Returns a token from the key file of GOOGLE_APPLICATION_CREDENTIALS, or from the metadata server.

    Raises:
        Unavailable: there is neither, or Google refuses.
    """
    try:
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2.id_token import fetch_id_token_credentials
    except ImportError:
        raise Unavailable("it is not installed: pip install google-auth requests") from None
    is_hasty = not os.environ.get(KEY_FILE) and shutil.which("gcloud") is not None
    request = _one_request(_HASTY_SECONDS if is_hasty else _ANSWER_SECONDS, once=is_hasty)
    try:
        credentials = fetch_id_token_credentials(audience, request=request)
        credentials.refresh(request)
        return str(credentials.token)
    except ValueError:  # before the others, some of which are ValueErrors too: these quote the answer
        reason = "Google's answer is not an ID token"
    except (GoogleAuthError, OSError) as error:
        reraise_interruption(error)
        reason = _first_words(error)
    raise Unavailable(reason)


def from_gcloud(audience: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns a token of the account that gcloud is logged in with.

    Raises:
        Unavailable: gcloud is missing, not logged in, or slow.
    """
    gcloud = shutil.which("gcloud")  # gcloud.cmd on Windows
    if gcloud is None:
        raise Unavailable("gcloud is not on the PATH")
    run = Commands(os.environ if environ is None else environ, budget_seconds=_GCLOUD_SECONDS)
    command = [gcloud, "auth", "print-identity-token"]
    try:
        # Only a service account may name the audience. A user's token is for gcloud; Cloud Run accepts it.
        return run([*command, f"--audiences={audience}"]).strip()
    except CommandFailed:
        return run(command).strip()


def _one_request(longest_seconds: float, *, once: bool) -> Callable[..., Any]:
    """Returns the function that google-auth sends its requests with.

    Args:
        longest_seconds: the longest wait for an answer.
        once: True if a server that does not answer must not be asked again.
    """
    from google.auth.exceptions import DefaultCredentialsError, TransportError
    from google.auth.transport.requests import Request

    class BoundedRequest(Request):  # type: ignore[misc]
        def __call__(self, url: str, timeout: float = longest_seconds, **named: Any) -> Any:
            seconds = min(timeout, longest_seconds)
            try:
                return super().__call__(url, timeout=seconds, **named)
            except TransportError:
                if not once:
                    raise
            raise DefaultCredentialsError("no metadata server answers, and there is no key file")

    return BoundedRequest()


def _first_words(error: BaseException) -> str:
    """Returns the beginning of google-auth's message, without Google's answer, which follows it."""
    message: object = error
    while isinstance(message, BaseException) and message.args:  # google-auth wraps errors in errors
        error, message = message, message.args[0]
    text = message if isinstance(message, str) else type(error).__name__
    first = text.strip().partition("\n")[0].partition(" Response")[0]
    return shortened(cleaned(first).rstrip(". "), _LONGEST_REASON)


_id_tokens = IdTokens(fetch_id_token)  # one per process: MLflow makes an auth object for each request
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_id_tokens.after_fork)
