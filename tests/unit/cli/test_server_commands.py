"""`server doctor`, `server print-compose`, and usage errors of `server run`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.print_compose import NAMES, deploy_file

GOOD = Finding("driver", Mark.GOOD, "installed")
WRONG = Finding("schema", Mark.WRONG, "old", "mlflow db upgrade URI", {"revision": "old"})


def server(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["server", *arguments])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """The findings about the database; there are no others."""
    findings = [GOOD]
    doctor = import_module("mlflow_sysmetrics.cli.server.doctor")
    monkeypatch.setattr(doctor, "_mlflow", lambda: [GOOD])
    monkeypatch.setattr(doctor, "database_findings", lambda _server: findings)
    monkeypatch.setattr(doctor, "storage_findings", lambda _server: [])
    monkeypatch.setattr(doctor, "access_findings", lambda _server: [])
    return findings


@pytest.mark.usefixtures("found")
def test_without_faults_the_exit_status_is_0() -> None:
    done = server("doctor")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "Nothing is wrong.")


def test_faults_are_summed_up_and_the_exit_status_is_1(found: list[Finding]) -> None:
    found.append(WRONG)
    done = server("doctor")
    assert (done.exit_code, done.stdout.splitlines()[-2]) == (1, "1 thing is wrong: schema.")
    assert "-> mlflow db upgrade URI" in done.stdout


def test_json_has_every_finding_under_its_section(found: list[Finding]) -> None:
    found.append(WRONG)
    done = server("doctor", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"], document["next"]) == (1, False, ["mlflow db upgrade URI"])
    assert [one["name"] for one in document["database"]] == ["driver", "schema"]
    assert document["database"][1]["revision"] == "old"


@pytest.mark.parametrize(
    "arguments", [("--public-name", "http://m.org"), ("--public-name", ""), ("--workers", "0")]
)
def test_a_usage_error_of_doctor_has_exit_status_2(arguments: tuple[str, ...]) -> None:
    assert server("doctor", *arguments).exit_code == 2


def test_files_are_printed_unchanged() -> None:
    assert server("print-compose").stdout == deploy_file("compose.yaml")
    assert server("print-compose", "--file", "Dockerfile").stdout == deploy_file("Dockerfile")


def test_all_files_are_written_if_none_exists(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "deploy"
    assert server("print-compose", "--to", str(directory)).exit_code == 0
    assert {one.name: one.read_text() for one in directory.iterdir()} == {
        name: deploy_file(name) for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_the_place_of_a_compose_file_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / name).symlink_to(tmp_path / "victim")  # does not exist yet
    assert server("print-compose", "--to", str(tmp_path / "to")).exit_code == 2
    assert not (tmp_path / "victim").exists()


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine")
    done = server("print-compose", "--to", str(tmp_path))
    assert done.exit_code == 2
    assert "--to must be a directory without Dockerfile" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--allowed-host", "http://m.org"),
            "--allowed-host must contain host names such as 'mlflow' or '*.example.org:443', got 'http://m.org'",
        ),
        (("--backend-store-uri", "./mlruns"), "must be a database, got './mlruns'"),
        (("--basic-auth",), "needs the password of the user admin in MLFLOW_AUTH_ADMIN_PASSWORD"),
        (("--port", "70000"), "70000"),
        (("--start-timeout", "soon"), "--start-timeout must be a duration"),
    ],
)
def test_a_usage_error_of_run_has_exit_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = server("run", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
