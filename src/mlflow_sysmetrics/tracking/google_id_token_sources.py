"""Where Google ID tokens come from: google-auth in a cloud or with a key file, gcloud on a laptop."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_sysmetrics.command import CommandFailed, Commands
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.tracking.google_id_token_cache import NoIdToken
from mlflow_sysmetrics.tracking.secrets import cleaned

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
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - MLflow 2.8 does not bring it
        from google.oauth2.id_token import fetch_id_token_credentials  # noqa: PLC0415
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
    from google.auth.exceptions import DefaultCredentialsError, TransportError  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    class BoundedRequest(Request):  # type: ignore[misc]
        def __call__(self, url: str, timeout: float = longest_seconds, **named: Any) -> Any:  # noqa: ANN401
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
