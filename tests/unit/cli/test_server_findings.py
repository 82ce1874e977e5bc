"""Findings of `server doctor`, without a database or a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server import inspection
from mlflow_sysmetrics.cli.server.inspection import (
    InspectedServer,
    access_findings,
    database_findings,
    storage_findings,
)
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.server.database import DatabaseState

GIGABYTE = 10**9
CURRENT = "abc123"


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def database(
    monkeypatch: pytest.MonkeyPatch, state: DatabaseState | Fault, **asked: Any
) -> dict[str, Finding]:
    """Returns the findings about a database in this state."""

    def answer(_uri: str, _seconds: float) -> DatabaseState:
        if isinstance(state, Fault):
            raise state
        return state

    monkeypatch.setattr(inspection, "server_store", lambda uri: uri)
    monkeypatch.setattr(inspection, "database_state", answer)
    monkeypatch.setattr(inspection, "newest_revision", lambda: CURRENT)
    server = InspectedServer(backend_store_uri="postgresql+psycopg2://a:s3cr3t@db/runs", **asked)
    return by_name(database_findings(server))


def access(**asked: Any) -> dict[str, Finding]:
    return by_name(access_findings(InspectedServer(**asked)))


def storage(**asked: Any) -> dict[str, Finding]:
    return by_name(storage_findings(InspectedServer(**asked)))


def test_no_database_is_wrong() -> None:
    assert by_name(database_findings(InspectedServer()))["database"].mark is Mark.WRONG


def test_a_current_database_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    found = database(monkeypatch, DatabaseState(False, CURRENT, 97), workers=2)
    assert {one.mark for one in found.values()} == {Mark.GOOD}
    assert found["connections"].text == "up to 60 (2 workers x 2 pools x 15) of 97"
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize(
    ("state", "mark", "text"),
    [
        (DatabaseState(True, None, 97), Mark.NOTE, "no tables yet"),
        (DatabaseState(False, None, 97), Mark.WRONG, "another program's database"),
        (DatabaseState(False, "old", 97), Mark.WRONG, "needs abc123: it would not start"),
    ],
)
def test_an_unsuitable_schema_is_reported(
    monkeypatch: pytest.MonkeyPatch, state: DatabaseState, mark: Mark, text: str
) -> None:
    schema = database(monkeypatch, state)["schema"]
    assert (schema.mark, text in schema.text) == (mark, True)


def test_too_few_connections_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "10", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "soon"}
    state = DatabaseState(False, CURRENT, 97)
    found = database(monkeypatch, state, workers=4, basic_auth=True, environ=environ)["connections"]
    assert found.mark is Mark.WRONG
    assert found.more == {"needed": 4 * 3 * 20, "most": 97}


def test_an_unreachable_database_ends_the_inspection(monkeypatch: pytest.MonkeyPatch) -> None:
    found = database(monkeypatch, Fault("Connection refused", Cause.DOWN))
    assert found["reachable"].mark is Mark.WRONG
    assert "schema" not in found


def test_a_uri_without_its_driver_is_a_note() -> None:
    pytest.importorskip("psycopg2", reason="the driver of PostgreSQL is an extra")
    server = InspectedServer(backend_store_uri="postgresql://a:s3cr3t@127.0.0.1:1/runs")
    driver = next(iter(database_findings(server)))
    assert driver.mark is Mark.NOTE
    assert driver.remedy == "start MLFLOW_BACKEND_STORE_URI with postgresql+psycopg2://"


@pytest.mark.parametrize("name", ["file/runs.db", f"file/{'x' * 300}/runs.db"])
def test_a_file_that_cannot_be_created_is_wrong(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    asked = InspectedServer(backend_store_uri=f"sqlite:///{tmp_path}/{name}")
    assert by_name(database_findings(asked))["reachable"].mark is Mark.WRONG
    assert by_name(storage_findings(asked))["room for the database"].mark is not Mark.WRONG


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    server = InspectedServer(backend_store_uri=f"sqlite:///{tmp_path}/runs.db")
    assert by_name(database_findings(server))["reachable"].mark is Mark.NOTE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "hosts", "mark"),
    [
        ("mlflow:5000", ("mlflow:*",), Mark.GOOD),
        ("mlflow:5000", ("mlflow",), Mark.WRONG),
        ("mlflow:5000", (), Mark.WRONG),
        ("localhost:5001", (), Mark.GOOD),
        ("10.1.2.3:5000", (), Mark.GOOD),
    ],
)
def test_a_host_name_that_is_not_allowed_is_wrong(name: str, hosts: tuple[str, ...], mark: Mark) -> None:
    assert access(public_names=(name,), allowed_hosts=hosts)[f"called {name}"].mark is mark


def test_the_remedy_keeps_the_allowed_names() -> None:
    found = access(public_names=("m.org",), allowed_hosts=("mlflow",))["called m.org"]
    assert found.remedy == "export MLFLOW_SERVER_ALLOWED_HOSTS=mlflow,m.org"


@pytest.mark.parametrize(
    ("origins", "mark"), [("", Mark.NOTE), ("https://other.org", Mark.NOTE), ("https://m.org", Mark.GOOD)]
)
def test_read_only_pages_are_a_note(origins: str, mark: Mark) -> None:
    environ = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins}
    assert access(public_names=("m.org",), environ=environ)["pages of m.org"].mark is mark


def test_local_pages_may_always_make_changes() -> None:
    assert "pages of localhost:5000" not in access(public_names=("localhost:5000",))


def test_a_server_without_authentication_is_a_note() -> None:
    assert access()["users"].mark is Mark.NOTE


SECRET = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "k3y"}


@pytest.mark.parametrize(
    ("environ", "name", "mark"),
    [
        ({}, "secret key", Mark.WRONG),
        (SECRET, "secret key", Mark.GOOD),
        ({}, "administrator", Mark.WRONG),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": ""}, "administrator", Mark.WRONG),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "administrator", Mark.WRONG),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "password1234"}, "administrator", Mark.WRONG),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "s3cr3t-and-long"}, "administrator", Mark.GOOD),
        ({"MLFLOW_AUTH_CONFIG_PATH": "/no/such/file"}, "administrator", Mark.WRONG),
    ],
)
def test_incomplete_authentication_is_wrong(environ: dict[str, str], name: str, mark: Mark) -> None:
    found = access(basic_auth=True, environ=environ)
    assert found[name].mark is mark
    assert "s3cr3t" not in str(found)


def test_a_password_in_the_file_counts(tmp_path: Path) -> None:
    (tmp_path / "auth.ini").write_text("[mlflow]\nadmin_password = s3cr3t-and-long\n")
    environ = {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini")}
    assert access(basic_auth=True, environ=environ)["administrator"].mark is Mark.GOOD


def test_an_unset_artifacts_destination_is_wrong() -> None:
    assert storage()["artifacts"].mark is Mark.WRONG


def test_a_writable_directory_is_good_and_left_unchanged(tmp_path: Path) -> None:
    found = storage(artifacts_destination=str(tmp_path / "artifacts"))
    assert found["artifacts"].mark is Mark.GOOD
    assert list(tmp_path.iterdir()) == []


def test_a_relative_directory_is_a_note() -> None:
    assert storage(artifacts_destination="artifacts")["artifacts"].mark is Mark.NOTE


def test_an_unwritable_directory_is_wrong() -> None:
    if not Path("/proc").exists():
        pytest.skip("needs /proc, which not even root can write to")
    assert storage(artifacts_destination="/proc/artifacts")["artifacts"].mark is Mark.WRONG


@pytest.mark.parametrize(("free", "mark"), [(0.5, Mark.WRONG), (5, Mark.NOTE), (50, Mark.GOOD)])
def test_little_room_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, mark: Mark
) -> None:
    class Usage:
        def __init__(self) -> None:
            self.free = int(free * GIGABYTE)

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage())
    found = storage(artifacts_destination=str(tmp_path), backend_store_uri=f"sqlite:///{tmp_path}/runs.db")
    assert found["room for artifacts"].mark is mark
    assert found["room for the database"].mark is mark


def test_an_object_store_without_its_package_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "find_spec", lambda _name: None)
    found = storage(artifacts_destination="s3://mlflow")["artifacts"]
    assert (found.mark, found.remedy) == (Mark.WRONG, "pip install boto3")
