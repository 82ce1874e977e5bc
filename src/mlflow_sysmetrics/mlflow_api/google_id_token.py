"""Google ID tokens for MLflow's requests: a tracking server on Cloud Run, or behind an identity-aware proxy.

Switched on by MLFLOW_TRACKING_AUTH=google-id-token. Each request gets a token for the server that it goes
to, or for MLFLOW_TRACKING_AUDIENCE (the client id of a proxy, a custom audience of a service). A training may
last for days: tokens live an hour, and are fetched again before they end.

MLflow loads this when it makes its first request with an auth plugin, so requests is loaded already.
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

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.command import CommandFailed, Commands
from mlflow_sysmetrics.mlflow_api.faults import NoIdToken
from mlflow_sysmetrics.mlflow_api.secrets import cleaned

# FOLDED google_id_token_cache: ID tokens, kept for as long as they are good.

# A token is fetched again when it has less than this left. Google's metadata server hands out the same token
# until four minutes before its end, so that asking earlier brings nothing; google-auth has this number too.
REFRESH_SECONDS = 225.0
# A token that has just been fetched is used at least so long, whatever this machine's clock says of it.
_SHORTEST_USE_SECONDS = 30.0
# A failure is told again for so long without another try, which takes seconds: many threads may ask.
_FAILURE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A token, when it ends and when it is to be fetched again, in seconds since 1970."""

    text: str
    ends_at: float
    refresh_at: float


class IdTokens:
    """Hands out ID tokens, one per audience at a time; any thread may ask.

    One thread fetches; the others go on with the token that there is, and wait only where there is none.

    Args:
        fetch: returns a new token for an audience, or raises `NoIdToken`.
        clock: seconds since 1970, which a token's end is given in.
    """

    def __init__(self, fetch: Callable[[str], str], clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, tuple[str, str | None, float]] = {}
        self._fetching = threading.Lock()

    def token(self, audience: str) -> str:
        """Returns a token for an audience.

        Raises:
            NoIdToken: there is none.
        """
        kept = self._kept.get(audience)
        now = self._clock()
        if kept is not None and now < kept.refresh_at:
            return kept.text
        good = kept.text if kept is not None and now < kept.ends_at else None
        if good is None:
            self._fetching.acquire()
        elif not self._fetching.acquire(blocking=False):
            return good
        try:
            return self._fetched(audience)
        except NoIdToken:
            if good is None:
                raise
            return good  # minutes are left to fetch another
        finally:
            self._fetching.release()

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
            ends_at = end_of(text)
        except NoIdToken as error:
            self._failed[audience] = error.reason, error.remedy, self._clock()
            raise
        self._failed.pop(audience, None)
        refresh_at = max(ends_at - REFRESH_SECONDS, self._clock() + _SHORTEST_USE_SECONDS)
        self._kept[audience] = _Kept(text, max(ends_at, refresh_at), refresh_at)
        return text

    def after_fork(self) -> None:
        """Replaces the lock in a forked child: the parent's may be held by a thread that is not here."""
        self._fetching = threading.Lock()


def end_of(token: str) -> float:
    """Returns when a JSON Web Token ends, in seconds since 1970.

    Raises:
        NoIdToken: it is none.
    """
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        pass
    # Outside of the handler: what was received may be a secret, and the errors above quote it.
    raise NoIdToken("What was received in place of a Google ID token is none (not shown: it may be a secret)")


# FOLDED google_id_token_sources: Where Google ID tokens come from: google-auth in a cloud or with a key file, gcloud on a laptop.

KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"

# google-auth waits 120 s for Google, and 3 s with three tries for a metadata server: a request would not end.
_ANSWER_SECONDS = 10.0
# A laptop has no metadata server, and its network swallows the question; gcloud is asked next.
_HASTY_SECONDS = 1.0
# gcloud starts a Python of its own and asks Google: 1 to 3 s, more on a cold disk. Two calls at most.
_GCLOUD_SECONDS = 15.0

_LONGEST_REASON = 300  # the address of a metadata server takes half of it

_REMEDY = (
    "On Google Cloud, run as a service account; elsewhere set GOOGLE_APPLICATION_CREDENTIALS to the key file "
    "of a service account, or on a laptop run: gcloud auth login."
)


def fetch_id_token(audience: str) -> str:
    """Returns a new token: of the key file's service account, of the machine's, or of gcloud's user.

    Raises:
        NoIdToken: none of them gives one; says why for each, and what to do.
    """
    try:
        return from_google_auth(audience)
    except Unavailable as error:
        without_google_auth = str(error)
    try:
        return from_gcloud(audience)
    except Unavailable as error:
        without_gcloud = str(error)
    # Outside of the handler: the errors behind those reasons may quote what Google answered.
    reasons = f"google-auth: {without_google_auth}; gcloud: {without_gcloud}"
    raise NoIdToken(f"There is no Google ID token for {audience} ({reasons})", _REMEDY)


def from_google_auth(audience: str) -> str:
    """Returns a token from the key file that GOOGLE_APPLICATION_CREDENTIALS names, or the metadata server's.

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
    except ValueError:  # before the others, of which some are ValueErrors too: these quote what they got
        reason = "what Google answered is no ID token"
    except (GoogleAuthError, OSError) as error:
        reason = _first_words(error)
    raise Unavailable(reason)


def from_gcloud(audience: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns a token of the account that gcloud is logged in with.

    Raises:
        Unavailable: gcloud is missing, not logged in, or slow.
    """
    gcloud = shutil.which("gcloud")  # of Windows it is gcloud.cmd
    if gcloud is None:
        raise Unavailable("gcloud is not on the PATH")
    run = Commands(os.environ if environ is None else environ, budget_seconds=_GCLOUD_SECONDS)
    command = [gcloud, "auth", "print-identity-token"]
    try:
        # A service account may name the audience; a user's tokens are for gcloud, which Cloud Run takes too.
        return run([*command, f"--audiences={audience}"]).strip()
    except CommandFailed:
        return run(command).strip()


def _one_request(longest_seconds: float, *, once: bool) -> Callable[..., Any]:
    """Returns what google-auth makes its requests with.

    Args:
        longest_seconds: the longest wait for an answer.
        once: whether a server that does not answer is not asked again.
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
    """Returns the beginning of what google-auth says; what Google answered follows it, and is left out."""
    said: object = error
    while isinstance(said, BaseException) and said.args:  # it wraps errors into errors
        error, said = said, said.args[0]
    text = said if isinstance(said, str) else type(error).__name__
    first = text.strip().partition("\n")[0].partition(" Response")[0]
    return cleaned(first)[:_LONGEST_REASON].rstrip(". ")


NAME = "google-id-token"
AUDIENCE = "MLFLOW_TRACKING_AUDIENCE"

_PORTS = {"http": 80, "https": 443}
_id_tokens = IdTokens(fetch_id_token)  # of this process: MLflow makes an auth object for each request
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_id_tokens.after_fork)


class GoogleIdTokenAuthProvider:
    """Is the `mlflow.request_auth_provider` entry point.

    It has the methods of MLflow's `RequestAuthProvider`, the same in every MLflow 2 and 3 that has auth
    plugins, and does not inherit from it: looking at this package must not import MLflow.
    """

    def get_name(self) -> str:
        """Returns what MLFLOW_TRACKING_AUTH has to be."""
        return NAME

    def get_auth(self) -> AuthBase:
        """Returns what puts a token on a request. MLflow asks for every request anew."""
        return GoogleIdTokenAuth(_id_tokens)


class GoogleIdTokenAuth(AuthBase):  # type: ignore[misc]
    """Puts a Google ID token on a request, in place of whatever Authorization it had."""

    def __init__(self, id_tokens: IdTokens) -> None:
        self._id_tokens = id_tokens

    def __call__(self, request: Any) -> Any:
        """Returns the request with a token.

        Raises:
            NoIdToken: there is none; says where it was looked for, and what to do.
        """
        audience = os.environ.get(AUDIENCE, "").strip() or origin(request.url)
        request.headers["Authorization"] = f"Bearer {self._id_tokens.token(audience)}"
        return request


def origin(url: str) -> str:
    """Returns the part of a URL that says which server: what Cloud Run takes as an audience.

    It is the request's and not that of MLflow's current tracking URI, which a client with a URI of its own
    does not go to: no server is shown a token that another one would take.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
