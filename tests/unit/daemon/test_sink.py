"""What is said of a server, and what an answer means. The sinks themselves are tried on real stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.delivery.sink import ClientSink, RestSink, _read, _timeouts, open_sink
from mlflow_sysmetrics.errors import RunRefused, ServerUnreachable
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://server:5000", "http://server:5000"),
        ("http://user:secret@server:5000/prefix", "http://server:5000/prefix"),
        ("postgresql://user:sec@ret/word@server/db?password=secret", "postgresql://server/db"),
        ("http://user:what?secret@server/", "http://server/"),
        ("http://user:hash#secret@server/", "http://server/"),
        ("sqlite:////home/me@work/runs.db", "sqlite:////home/me@work/runs.db"),
        ("http://[::1", "http://[::1"),
        ("http://server:5000/teams/me@corp/ml#x", "http://server:5000/teams/me@corp/ml"),
        ("postgresql://user:1234/5@server/db", "postgresql://server/db"),
        ("sqlite:///runs.db", "sqlite:///runs.db"),
        ("databricks", "databricks"),
    ],
)
def test_secrets_are_not_shown(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


def test_secrets_in_the_words_of_others_are_not_shown_either() -> None:
    uri = "foo://me:hunter2@server/x"
    text = f"No store for {uri!r}; did you mean http://me:hun#ter2@server?"
    assert without_secrets(text, uri) == "No store for 'foo://server/x'; did you mean http://server?"


def test_an_exception_that_is_its_own_cause_is_no_endless_story() -> None:
    error = RuntimeError("round and round")
    error.__cause__ = error
    with pytest.raises(ServerUnreachable, match="round and round"):
        ClientSink(FailingClient(error)).send("run", [], [], {})


def layered() -> None:
    """Fails as MLflow does on top of requests on top of urllib3 on top of a socket."""
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("Max retries exceeded with url: http://user:secret@server") from error
    except RuntimeError as error:
        raise ValueError(f"API request failed with exception {error}") from error


class FailingClient:
    """A client whose store fails."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def log_batch(self, *_: object, **__: object) -> None:
        if self.error is not None:
            raise self.error
        layered()


def test_the_reason_is_the_one_at_the_bottom() -> None:
    with pytest.raises(ServerUnreachable, match=r"^Connection refused$"):
        ClientSink(FailingClient(None)).send("run", [], [], {})


def test_a_long_reason_is_cut_and_says_so() -> None:
    with pytest.raises(ServerUnreachable, match=r"^KeyError: 'x{200,299}\.\.\.$"):
        ClientSink(FailingClient(KeyError("x" * 1000))).send("run", [], [], {})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RESOURCE_DOES_NOT_EXIST", RunRefused),
        ("INVALID_PARAMETER_VALUE", RunRefused),
        ("TEMPORARILY_UNAVAILABLE", ServerUnreachable),
        ("INTERNAL_ERROR", ServerUnreachable),
        (None, ServerUnreachable),
    ],
)
def test_what_a_store_says_is_final_or_may_pass(code: str | None, kind: type[Exception]) -> None:
    error = RuntimeError("no")
    error.error_code = code  # type: ignore[attr-defined]
    with pytest.raises(kind):
        ClientSink(FailingClient(error)).send("run", [], [], {})


def test_credentials_that_cannot_be_had_may_be_had_later() -> None:
    def expired() -> None:
        raise PermissionError(13, "token expired")

    with pytest.raises(ServerUnreachable, match="token expired"):
        RestSink(expired).send("run", [], [], {})


class Dripping:
    """An answer that comes in piece by piece."""

    status_code = 200

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.closed = False

    def iter_content(self, _: int) -> list[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed = True


def test_an_answer_that_drips_in_for_ever_is_not_waited_for() -> None:
    answer = Dripping([b"{", b"}"])
    with pytest.raises(ServerUnreachable, match="drips in"):
        _read(answer, ends=-1.0)
    assert answer.closed


def test_an_answer_that_comes_in_time_is_read_to_its_end() -> None:
    assert _read(Dripping([b"{", b"}"]), ends=float("inf")) == b"{}"


def test_connecting_and_reading_have_short_timeouts_of_their_own() -> None:
    assert _timeouts(object()) == {"timeout": (5, 15)}


def test_the_sdk_of_databricks_which_knows_one_number_gets_one() -> None:
    class Creds:
        use_databricks_sdk = True

    assert _timeouts(Creds()) == {"timeout": 15, "retry_timeout_seconds": 15}


def test_a_store_whose_disk_is_away_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "unmounted" / "mlflow.db"
    with pytest.raises(ServerUnreachable, match="does not exist"):
        open_sink(f"sqlite:///{path}")
    assert not path.parent.exists()
