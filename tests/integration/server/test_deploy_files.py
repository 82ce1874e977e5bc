"""The files of deploy/, read like Docker reads them."""

from __future__ import annotations

import json
import os
import re
import subprocess

import mlflow
import pytest
from compose_files import (
    DEPLOY,
    FILLED_IN,
    Refused,
    compose,
    dockerfile,
    environment_of,
    health_check_of_image,
    image_environment,
    last,
    runnable,
    variables,
)

from mlflow_sysmetrics.cli.server.print_compose import NAMES, deploy_file

SERVERS = ("mlflow", "mlflow-auth")
# Names that are not MLflow's, and who reads them.
OTHERS = {
    "PATH": "the shell",
    "PYTHONUNBUFFERED": "Python",
    "GIT_PYTHON_REFRESH": "GitPython, which MLflow imports",
    **dict.fromkeys(("PGDATABASE", "PGHOST", "PGPASSWORD", "PGUSER"), "libpq, which psycopg2 is made of"),
    "OPTUNA_PASSWORD": "the script of its service",
    "POSTGRES_USER": "the image of PostgreSQL",
    "POSTGRES_DB": "the image of PostgreSQL",
    "POSTGRES_PASSWORD": "the image of PostgreSQL",
    "AWS_ACCESS_KEY_ID": "boto3",
    "AWS_SECRET_ACCESS_KEY": "boto3",
    "AWS_DEFAULT_REGION": "boto3",
    "RUSTFS_ADDRESS": "the image of the object store",
    "RUSTFS_ACCESS_KEY": "the image of the object store",
    "RUSTFS_SECRET_KEY": "the image of the object store",
    "RUSTFS_CONSOLE_ENABLE": "the image of the object store",
}
is_mlflow_3 = pytest.mark.skipif(
    int(mlflow.__version__.partition(".")[0]) < 3, reason="the files are for MLflow 3"
)


@pytest.mark.parametrize("name", NAMES)
def test_the_package_has_the_same_files(name: str) -> None:
    assert deploy_file(name) == (DEPLOY / name).read_text(), (
        f"copy deploy/{name} into src/mlflow_sysmetrics/server/deploy"
    )


@is_mlflow_3
@pytest.mark.filterwarnings("ignore")  # of MLflow's imports
def test_every_variable_is_used_by_a_program() -> None:
    services = compose(FILLED_IN)["services"].values()
    used = {name for service in services for name in service.get("environment", {})} | set(
        image_environment()
    )
    from mlflow.cli import server

    of_options = {one.envvar for one in server.params if one.envvar}
    known = {name for name in dir(mlflow.environment_variables) if name.startswith("MLFLOW_")} | of_options
    assert {name for name in used if name.startswith("MLFLOW_")} <= known
    assert {name for name in used if not name.startswith("MLFLOW_")} == set(OTHERS)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("POSTGRES_PASSWORD", "copy .env.example to .env and set POSTGRES_PASSWORD there"),
        ("COMPOSE_PROFILES", "set COMPOSE_PROFILES in .env to open or to auth"),
    ],
)
def test_it_does_not_start_without_required_variables(missing: str, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        compose({**FILLED_IN, missing: ""})


def test_no_secret_has_a_default() -> None:
    secret = [one for one in variables() if re.search("PASSWORD|SECRET|KEY", one.name)]
    assert {one.name for one in secret} >= {"POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    assert [one for one in secret if one.how == ":-" and one.rest] == []


def test_the_example_lists_all_variables_and_has_no_secrets() -> None:
    lines = [line.lstrip("#") for line in (DEPLOY / ".env.example").read_text().splitlines()]
    example = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z0-9_]+=", line))
    services = compose(FILLED_IN)["services"].values()
    handed_on = {
        name for one in services for name, value in one.get("environment", {}).items() if value is None
    }
    assert set(example) == {one.name for one in variables()} | handed_on
    assert {value for name, value in example.items() if re.search("PASSWORD|SECRET|KEY", name)} == {""}


def test_with_the_example_filled_in_there_is_one_server() -> None:
    for chosen, server in (("open", "mlflow"), ("auth", "mlflow-auth")):
        services = compose({**FILLED_IN, "COMPOSE_PROFILES": chosen})["services"]
        started = [name for name, one in services.items() if chosen in one.get("profiles", [chosen])]
        assert [name for name in started if name in SERVERS] == [server]
        assert {"postgres", "migrate"} <= set(started)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_has_what_services_need(name: str) -> None:
    service = compose({"POSTGRES_PASSWORD": "x", "COMPOSE_PROFILES": "open"})["services"][name]
    assert service["ports"] == ["127.0.0.1:5001:5000"]
    assert service["volumes"] == [f"artifacts:{image_environment()['MLFLOW_ARTIFACTS_DESTINATION']}"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"] == {"cpus": "2.0", "memory": "2g"}
    assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    others = service.get("networks", {"default": {"aliases": [name]}})["default"]["aliases"]
    assert others == ["mlflow"]  # the name that other containers call it by


def test_dependencies_exist_and_volumes_have_names() -> None:
    document = compose(FILLED_IN)
    for service in document["services"].values():
        assert set(service.get("depends_on", {})) <= set(document["services"])
        assert {one.partition(":")[0] for one in service.get("volumes", [])} <= set(document["volumes"])


def test_the_database_has_a_health_check_and_a_volume() -> None:
    service = compose(FILLED_IN)["services"]["postgres"]
    assert service["healthcheck"]["test"][1] == "pg_isready"
    assert service["volumes"] == ["postgres:/var/lib/postgresql/data"]


@pytest.mark.parametrize("name", SERVERS)
def test_the_health_check_equals_that_of_the_image(name: str) -> None:
    check = compose(FILLED_IN)["services"][name]["healthcheck"]
    options, command = health_check_of_image()
    assert check["test"] == ["CMD", *command]
    assert options == {"interval": "30s", "timeout": "10s", "retries": "3", "start-period": "60s"}
    assert [str(check[one]) for one in ("interval", "timeout", "retries", "start_period")] == [
        *options.values()
    ]


def test_the_image_is_built_in_one_stage_and_run_from_another() -> None:
    build, image = dockerfile()
    assert build[0].text.endswith(" AS build")
    assert build[0].text.removesuffix(" AS build") == image[0].text  # a virtual environment needs its Python
    assert any(one.name == "COPY" and one.text.startswith("--from=build ") for one in image)
    assert not any("pip install" in one.text for one in image)


def test_the_image_does_not_run_as_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [one.name for one in dockerfile()[-1]]
    assert names.index("USER") > max(n for n, name in enumerate(names) if name in {"RUN", "COPY"})


def test_the_directory_of_the_volume_belongs_to_the_user() -> None:
    """Docker gives a new volume the owner of the directory in the image."""
    made = next(one.text for one in dockerfile()[-1] if one.name == "RUN")
    assert json.loads(last("VOLUME")) == ["/mlflow/artifacts"]
    assert "install --directory --owner mlflow --group mlflow /mlflow /mlflow/artifacts" in made


def test_the_server_gets_the_signals_of_docker() -> None:
    """With a command in shell form, the shell would receive them."""
    assert json.loads(last("CMD")) == ["mlflow", "server"]
    assert isinstance(compose(FILLED_IN)["services"]["mlflow"]["command"], list)


def test_the_version_is_pinned_and_the_same_in_all_three_files() -> None:
    pinned = next(one.text for one in dockerfile()[0] if one.text.startswith("MLFLOW_VERSION="))
    assert "mlflow==${MLFLOW_VERSION}" in " ".join(one.text for one in dockerfile()[0])
    assert {one.rest for one in variables() if one.name == "MLFLOW_VERSION"} == {pinned.partition("=")[2]}
    assert pinned in (DEPLOY / ".env.example").read_text().splitlines()


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"MLFLOW_AUTH_ADMIN_PASSWORD": ""}, 1)])
def test_with_users_it_does_not_start_without_its_secrets(changes: dict[str, str], code: int) -> None:
    filled_in = {**FILLED_IN, **changes}
    services = compose(filled_in)["services"]
    assert services["mlflow-auth"]["depends_on"]["secrets"]["condition"] == "service_completed_successfully"
    done = subprocess.run(
        runnable(services["secrets"]["command"]),
        env={**os.environ, **environment_of(services["secrets"], filled_in), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert ("set in .env: MLFLOW_AUTH_ADMIN_PASSWORD (12 characters or more)" in done.stderr) is bool(code)


def test_the_command_that_creates_the_bucket_runs_in_a_shell() -> None:
    service = compose(FILLED_IN)["services"]["bucket"]
    [script] = service["command"]
    assert service["entrypoint"] == ["/bin/sh", "-c"]
    subprocess.run(["/bin/sh", "-n", "-c", script], check=True)
