"""`server doctor`, `server print-compose` and what `server run` says of a wrong command line."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.server.deploy_files import NAMES, deploy_file

GOOD = Finding("driver", Mark.GOOD, "installed")
WRONG = Finding("schema", Mark.WRONG, "old", "mlflow db upgrade URI", {"revision": "old"})


def server(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["server", *arguments])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found of the database; nothing else is looked at."""
    findings = [GOOD]
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.server.doctor"), "_mlflow", lambda: [GOOD])
    monkeypatch.setattr(
        import_module("mlflow_sysmetrics.cli.server.database"), "findings", lambda _asked: findings
    )
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.server.storage"), "findings", lambda _asked: [])
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.server.access"), "findings", lambda _asked: [])
    return findings


@pytest.mark.usefixtures("found")
def test_where_nothing_is_wrong_the_exit_status_is_0() -> None:
    done = server("doctor")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "Nothing is wrong.")


def test_what_is_wrong_is_summed_up_and_the_exit_status_is_1(found: list[Finding]) -> None:
    found.append(WRONG)
    done = server("doctor")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "1 thing is wrong: schema.")
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
def test_a_wrong_command_line_of_doctor_has_the_exit_status_2(arguments: tuple[str, ...]) -> None:
    assert server("doctor", *arguments).exit_code == 2


def test_the_compose_file_is_printed_as_it_is() -> None:
    assert server("print-compose").stdout == deploy_file("compose.yaml")
    assert server("print-compose", "--file", "Dockerfile").stdout == deploy_file("Dockerfile")


def test_all_files_are_written_where_none_of_them_is(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "deploy"
    assert server("print-compose", "--to", str(directory)).exit_code == 0
    assert {one.name: one.read_text() for one in directory.iterdir()} == {
        name: deploy_file(name) for name in NAMES
    }


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine")
    done = server("print-compose", "--to", str(tmp_path))
    assert done.exit_code == 2
    assert "has Dockerfile already" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--allowed-host", "http://m.org"),
            "allowed_hosts must contain host names such as 'mlflow' or '*.example.org:443', got 'http://m.org'",
        ),
        (("--backend-store-uri", "./mlruns"), "must be a database, got './mlruns'"),
        (("--basic-auth",), "needs a password of the user admin in MLFLOW_AUTH_ADMIN_PASSWORD"),
        (("--port", "70000"), "70000"),
        (("--start-timeout", "soon"), "'soon' is no duration"),
    ],
)
def test_a_wrong_command_line_of_run_has_the_exit_status_2(arguments: tuple[str, ...], said: str) -> None:
    done = server("run", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
