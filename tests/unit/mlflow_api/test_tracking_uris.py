"""Tracking URIs in messages, and in a journal that another process in another directory reads."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, lasting, origin, redacted, with_secrets


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("http://user:secret@server:5000/prefix?token=x", "http://server:5000/prefix"),
        ("https://server", "https://server"),
        ("sqlite:////srv/runs.db", "sqlite:////srv/runs.db"),
        ("postgresql://user:secret@server/db?password=x", "postgresql://server/db"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("/srv/mlruns", "/srv/mlruns"),
    ],
)
def test_a_uri_is_journalled_without_secrets(uri: str, written: str) -> None:
    assert lasting(uri) == written


def test_a_relative_path_is_journalled_as_absolute(tmp_path: Path) -> None:
    assert lasting("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert lasting("sqlite+pysqlite:///sub/runs.db?timeout=5") == f"sqlite+pysqlite:///{tmp_path}/sub/runs.db"
    assert lasting("./mlruns") == f"{tmp_path}/mlruns"
    assert lasting("file:./mlruns") == f"file://{tmp_path}/mlruns"


def test_a_deleted_working_directory_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert lasting("sqlite:///runs.db").endswith("runs.db")


def test_a_journalled_server_gets_the_known_credentials_back() -> None:
    known = ["http://other", "http://me:secret@server:5000"]
    assert with_secrets("http://server:5000", known) == "http://me:secret@server:5000"
    assert with_secrets("http://elsewhere", known) == "http://elsewhere"


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("http://host/teams/me@corp/ml", "http://host/teams/me@corp/ml"),
        ("http://host:5000/teams/me@corp/ml", "http://host:5000/teams/me@corp/ml"),
        ("http://user:secret@host/teams/me@corp", "http://host/teams/me@corp"),
        ("http://us@er:sec@ret@host/", "http://host/"),
        ("http://host?mail=me@corp", "http://host"),
        ("http://host/#/experiments/1", "http://host/"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("mysql+pymysql://me:pa/ss?x#y@host:3306/db", "mysql+pymysql://host:3306/db"),
        ("http://user:1/2@host/", "http://user:1/2@host/"),  # as requests reads it, right or wrong
    ],
)
def test_the_journalled_uri_names_the_host_that_is_contacted(uri: str, written: str) -> None:
    assert lasting(uri) == written


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("//user:secret@host:5000/x", "//host:5000/x"),
        ("//user:se/cret@host", "//host"),
        ("user:secret@host:5000", "host:5000"),
        ("http:user:secret@host", "http:host"),
        ("http:/user:secret@host/x", "http:/host/x"),
        ("user:secret@host/x", "host/x"),
        ("http://user://secret@host/x", "http://host/x"),
        ("databricks:profile", "databricks:profile"),
    ],
)
def test_a_malformed_uri_is_neither_shown_nor_journalled_with_its_password(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert "secret" not in lasting(uri)
    assert "cret" not in lasting(uri)


@pytest.mark.parametrize(
    "uri", ["http://user:pa/ss@host/x", "http://host\\@corp/", "https://:pass#word@host"]
)
def test_a_uri_without_a_host_is_journalled_as_its_scheme(uri: str) -> None:
    assert lasting(uri) == uri[: uri.index("//") + 2]


# The delimiters of a URI, percent-encoded, and the characters that a user or a password may have as they are.
QUOTED = st.text("aZ09é /?#@:[]%\\", min_size=4, max_size=12).map(lambda text: quote(text, safe=""))
QUOTED |= st.text("aZ09-._~!$&'()*+,;=", min_size=4, max_size=12)
SERVERS = st.tuples(
    st.sampled_from(["server", "a-1.example.test", "10.0.0.1", "[::1]"]),
    st.none() | st.sampled_from([1, 80, 5000, 65535]),
    st.lists(st.text("az09@:~-", min_size=1, max_size=8), max_size=3),
)


@given(
    scheme=st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "plugin"]),
    user=QUOTED,
    password=QUOTED,
    server=SERVERS,
    tail=st.sampled_from(["", "?", "?a=b", "#c", "?mail=me#x"]),
)
def test_the_server_is_always_journalled_and_never_a_user_or_password(
    scheme: str, user: str, password: str, server: tuple[str, int | None, list[str]], tail: str
) -> None:
    host, port, parts = server
    place = f"{scheme}://{host}{'' if port is None else f':{port}'}{''.join(f'/{part}' for part in parts)}"
    uri = place.replace("://", f"://{user}:{password}@") + tail
    # The path of another scheme's URI may be the rest of a password; only its client knows.
    assert lasting(uri) == (f"{scheme}://" if scheme == "plugin" and "@" in place else place)
    if "@" not in place:  # else messages lose more than that, and SQLAlchemy sees a user in the path
        assert redacted(uri) == place
        assert lasting(place) == place
    for shown in (lasting(uri), redacted(uri)):
        assert not any(secret in shown for secret in (user, password) if secret not in place)


def test_a_relative_path_keeps_its_secrets_and_options_and_becomes_absolute(tmp_path: Path) -> None:
    assert anchored("sqlite:///runs.db?timeout=5") == f"sqlite:///{tmp_path}/runs.db?timeout=5"
    assert anchored("file:./ml%23runs") == f"file://{tmp_path}/ml%23runs"
    assert anchored("http://me:secret@server/x?y") == "http://me:secret@server/x?y"
    assert anchored("sqlite:///file::memory:?uri=true") == "sqlite:///file::memory:?uri=true"
    of_sqlite = anchored("sqlite:///file:runs.db?mode=rw&uri=true")
    assert of_sqlite == f"sqlite:///file:{tmp_path}/runs.db?mode=rw&uri=true"
    assert lasting(of_sqlite) == f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("HTTP://me:secret@Server/x", ("http", "server", 80)),
        ("https://[::1]", ("https", "[::1]", 443)),
        ("https://[::1]:5000", ("https", "[::1]", 5000)),
        ("http://user:pa/ss@host", None),
        ("http://host\\@corp", None),
        ("sqlite:///runs.db", None),
        ("file:///runs", None),
        ("databricks", None),
    ],
)
def test_a_server_is_scheme_host_and_port(uri: str, found: tuple[str, str, int] | None) -> None:
    assert origin(uri) == found
