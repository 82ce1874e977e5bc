"""No password of a URI is shown, whatever it consists of and wherever the URI stands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import lasting, redacted

pytestmark = pytest.mark.exhaustive

SECRET = "s3cr3tXY"
SCHEMES = [
    *("http", "HTTPS", "postgresql+psycopg2", "mysql", "mssql+pyodbc", "sqlite", "file", "ftp", "s3", "gs"),
    *("wasbs", "dbfs", "databricks", "mlflow-artifacts", "hdfs", "plugin", "plugin+x.y-z"),
]
USERS = ["", "u", "me@corp", "us:er", f"AKIA{SECRET}"]
SPECIAL = "/?#@:[]!$&'()*+,;=%\\ \"<>^`{|}~.-_é"
PASSWORDS = [
    SECRET,
    *(form for char in SPECIAL for form in (char + SECRET, SECRET + char, f"a{char}{SECRET}{char}b")),
    *(
        f"{before}{SECRET}{after}"
        for before in ("//", "///", "80/", "8080/", "1:2/", "a@b/", "%2F")
        for after in ("", "/", "@")
    ),
]
HOSTS = ["h", "h.example.com:5000", "[::1]:5000"]
TAILS = ["", "/p", f"/db?password={SECRET}&x=1", f"?token={SECRET}", f"/#{SECRET}"]
MALFORMED = [
    f"//u:{SECRET}@h/x",
    f"///u:{SECRET}@h",
    f"u:{SECRET}@h:5000",
    f"u:a/{SECRET}@h:5000/x",
    f"http:/u:{SECRET}@h",
    f"http:u:{SECRET}@h",
    f"http:///u:{SECRET}@h",
    f"http//u:{SECRET}@h",
    f"sqlite:///u:{SECRET}@h/db",
    f"file:///u:{SECRET}@h/db",
    f"databricks:u:{SECRET}@h",
]
DATABASES = ("postgresql", "mysql", "mssql")


def uris(scheme: str) -> Iterator[str]:
    for user, password, host, tail in itertools.product(USERS, PASSWORDS, HOSTS, TAILS):
        yield f"{scheme}://{user}:{password}@{host}{tail}"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_password_is_shown(scheme: str) -> None:
    shown = [uri for uri in uris(scheme) if SECRET in redacted(uri)]
    assert not shown


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_password_is_left_in_a_message(scheme: str) -> None:
    """Neither the whole URI nor the part that a parser takes for a port or a path."""
    for uri in itertools.islice(uris(scheme), 0, None, 97):
        rest = uri.partition("://")[2]
        quoted = rest.rpartition("@")[0]
        if scheme.startswith(DATABASES):  # the user of a database is only a name
            quoted = quoted.replace(f"AKIA{SECRET}", "")
        message = cleaned(f"cannot parse {uri!r}: {uri}; no port {quoted!r}", uri)
        assert SECRET not in message, uri


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "plugin"])
def test_no_password_of_another_uri_is_left_in_a_message(scheme: str) -> None:
    for password in PASSWORDS:
        if not set(password) & set(' "<>'):
            assert SECRET not in cleaned(f"cannot reach {scheme}://u:{password}@h:1/x (no route)"), password


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_password_is_journalled(scheme: str) -> None:
    """Except for what is the path of the URI, as it is read by the client that has created the run."""
    is_read = scheme.lower().startswith(("http", *DATABASES))
    for uri in itertools.islice(uris(scheme), 0, None, 7):
        user = uri.partition("://")[2].rpartition("@")[0]
        if not (is_read and "/" in user) and "a@b/" not in user:
            assert SECRET not in lasting(uri), uri


@pytest.mark.parametrize("uri", MALFORMED)
def test_a_malformed_uri_shows_no_password(uri: str) -> None:
    assert SECRET not in redacted(uri)
    assert SECRET not in redacted(lasting(uri)), "a path stays one in the journal, and is shown without"
    assert SECRET not in cleaned(f"cannot use {uri}", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://tracking:5000/ml",
        "https://[::1]:5000",
        "databricks",
        "databricks://profile",
        "dbfs:/databricks/mlflow",
        "sqlite:////home/me@corp/runs.db",
        "sqlite:///C:/Users/me@corp/runs.db",
        "file:///home/me@corp/mlruns",
        "/home/me@corp/mlruns",
        "./me@corp",
        "postgresql://h:5432/db",
        "s3://bucket/path",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(uri: str) -> None:
    assert redacted(uri) == uri
