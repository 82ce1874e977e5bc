"""ID tokens, kept for as long as they are good."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mlflow_sysmetrics.errors import Unavailable

# A token is fetched again when it has less than this left. Google's metadata server hands out the same token
# until four minutes before its end, so that asking earlier brings nothing; google-auth has this number too.
REFRESH_SECONDS = 225.0
# A token that has just been fetched is used at least so long, whatever this machine's clock says of it.
_SHORTEST_USE_SECONDS = 30.0
# A failure is told again for so long without another try, which takes seconds: many threads may ask.
_FAILURE_SECONDS = 5.0


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
