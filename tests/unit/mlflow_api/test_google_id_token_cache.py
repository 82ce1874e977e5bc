"""ID tokens are fetched once, again before they expire, and by one thread at a time."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator

import pytest

from mlflow_sysmetrics.mlflow_api.faults import NoIdToken
from mlflow_sysmetrics.mlflow_api.google_id_token import IdTokens, end_of

HOUR = 3600.0
NOON = 1_772_366_400.0
SERVER = "https://mlflow.example"
SOON = 30.0  # longest wait of a test for what comes at once on an idle machine


def token_until(ends_at: float, name: str = "t") -> str:
    parts = [{"alg": "none"}, {"exp": ends_at, "name": name}]
    encoded = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts]
    return ".".join([*encoded, "signature"])


class Google:
    """Hands out tokens that live an hour from a moment that tests move."""

    def __init__(self) -> None:
        self.now = NOON
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.lifetime = HOUR

    def clock(self) -> float:
        return self.now

    def fetch(self, audience: str) -> str:
        self.asked.append(audience)
        if self.failure is not None:
            raise self.failure
        return token_until(self.now + self.lifetime, f"{audience} {len(self.asked)}")


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
def tokens(google: Google) -> IdTokens:
    return IdTokens(google.fetch, google.clock)


def test_a_token_serves_for_most_of_its_life(google: Google, tokens: IdTokens) -> None:
    first = tokens.token(SERVER)
    google.now += 3300
    assert tokens.token(SERVER) == first
    assert google.asked == [SERVER]


def test_a_token_is_fetched_again_before_it_expires(google: Google, tokens: IdTokens) -> None:
    first = tokens.token(SERVER)
    google.now += 3400
    assert tokens.token(SERVER) != first
    assert len(google.asked) == 2


def test_every_audience_has_its_own_token(google: Google, tokens: IdTokens) -> None:
    assert tokens.token(SERVER) != tokens.token("https://other.example")
    assert google.asked == [SERVER, "https://other.example"]


def test_a_failed_refresh_does_not_matter_while_the_token_is_valid(google: Google, tokens: IdTokens) -> None:
    first = tokens.token(SERVER)
    google.now += 3400
    google.failure = NoIdToken("the metadata server restarts")
    assert tokens.token(SERVER) == first


def test_an_expired_token_is_not_sent(google: Google, tokens: IdTokens) -> None:
    tokens.token(SERVER)
    google.now += HOUR
    google.failure = NoIdToken("the metadata server restarts")
    with pytest.raises(NoIdToken, match="the metadata server restarts"):
        tokens.token(SERVER)


def test_a_failure_is_reported_again_without_another_attempt(google: Google, tokens: IdTokens) -> None:
    google.failure = NoIdToken("nobody is logged in")
    for _ in range(3):
        with pytest.raises(NoIdToken, match="nobody is logged in"):
            tokens.token(SERVER)
    assert google.asked == [SERVER]


def test_a_failure_that_is_reported_again_has_its_remedy(google: Google, tokens: IdTokens) -> None:
    google.failure = NoIdToken("nobody is logged in", "Run: gcloud auth login.")
    for _ in range(2):
        with pytest.raises(NoIdToken, match="nobody is logged in") as raised:
            tokens.token(SERVER)
        assert raised.value.remedy == "Run: gcloud auth login."


def test_seconds_after_a_failure_there_is_another_attempt(google: Google, tokens: IdTokens) -> None:
    google.failure = NoIdToken("nobody is logged in")
    with pytest.raises(NoIdToken):
        tokens.token(SERVER)
    google.now += 6
    google.failure = None
    assert tokens.token(SERVER)


def test_a_new_token_that_our_clock_calls_expired_is_used_for_a_while(
    google: Google, tokens: IdTokens
) -> None:
    google.lifetime = -HOUR  # this machine's clock is two hours ahead
    first = tokens.token(SERVER)
    google.now += 20
    assert tokens.token(SERVER) == first
    google.now += 20
    assert tokens.token(SERVER) != first


def test_threads_that_start_together_fetch_one_token(google: Google) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def fetch(audience: str) -> str:
        entered.set()
        go_on.wait(SOON)
        return google.fetch(audience)

    tokens = IdTokens(fetch, google.clock)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(tokens.token(SERVER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(SOON)
    go_on.set()
    for thread in threads:
        thread.join(SOON)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert google.asked == [SERVER]


def test_no_thread_waits_for_a_refresh_while_the_token_is_valid(google: Google) -> None:
    entered, go_on = threading.Event(), threading.Event()
    go_on.set()

    def fetch(audience: str) -> str:
        entered.set()
        go_on.wait(SOON)
        return google.fetch(audience)

    tokens = IdTokens(fetch, google.clock)
    first = tokens.token(SERVER)
    google.now += 3400
    entered.clear()
    go_on.clear()
    refresher = threading.Thread(target=tokens.token, args=(SERVER,))
    refresher.start()
    assert entered.wait(SOON)
    assert tokens.token(SERVER) == first  # would wait for the refresher without end
    go_on.set()
    refresher.join(SOON)


@pytest.fixture
def hanging(google: Google) -> Iterator[IdTokens]:
    """A cache whose first request for a token of SERVER, in another thread, does not end."""
    entered, go_on = threading.Event(), threading.Event()

    def fetch(audience: str) -> str:
        if audience == SERVER:
            entered.set()
            go_on.wait(SOON)
        return google.fetch(audience)

    tokens = IdTokens(fetch, google.clock, wait_seconds=0.05)
    fetcher = threading.Thread(target=tokens.token, args=(SERVER,))
    fetcher.start()
    assert entered.wait(SOON)
    yield tokens
    go_on.set()
    fetcher.join(SOON)


def test_a_request_that_hangs_holds_up_no_other_audience(hanging: IdTokens) -> None:
    assert hanging.token("https://other.example")


def test_a_request_that_hangs_is_waited_for_within_bounds(hanging: IdTokens) -> None:
    with pytest.raises(NoIdToken, match=r"another thread has been waiting for an ID token for 0\.05 s"):
        hanging.token(SERVER)


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(google: Google, tokens: IdTokens) -> None:
    lock = tokens._fetching[SERVER] = threading.Lock()
    lock.acquire()  # as a thread has it that the child does not have
    tokens.after_fork()
    assert tokens.token(SERVER)
    assert google.asked == [SERVER]


def test_the_expiry_of_a_token_is_read_from_it() -> None:
    assert end_of(token_until(NOON)) == NOON


@pytest.mark.parametrize("text", ["", "hunter2", "a.hunter2.b", "a.aHVudGVyMg.b", token_until(NOON)[:-12]])
def test_an_answer_that_is_not_a_token_is_neither_sent_nor_shown(google: Google, text: str) -> None:
    tokens = IdTokens(lambda _: text, google.clock)
    with pytest.raises(NoIdToken) as raised:
        tokens.token(SERVER)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__context__ is None
