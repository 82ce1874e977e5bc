"""The examples of deploy/README.md work, as far as they do not need Docker."""

from __future__ import annotations

import os
import re
from pathlib import Path

import forks
import mlflow
import pytest
from compose_files import DEPLOY, FILLED_IN, compose
from server_calls import call

from mlflow_sysmetrics.server import LocalServer

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's client, which warns of its libraries
TEXT = (DEPLOY / "README.md").read_text()
PASSWORD = "a-long-enough-password"


@pytest.mark.usefixtures("forked")
@pytest.mark.skipif(int(mlflow.__version__.partition(".")[0]) < 3, reason="the files are for MLflow 3")
def test_users_are_created_and_deleted_runs_are_freed(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    with (
        LocalServer(directory=tmp_path, admin_password=PASSWORD) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environ.items():
            patch.setenv(name, value)
        [code] = re.findall(r"```python\n(from mlflow\.server .*?)```", TEXT, re.DOTALL)
        exec(code.replace("http://localhost:5001", server.url), {})
        client = mlflow.MlflowClient(server.url)
        run_id = client.create_run("0").info.run_id
        client.log_text(run_id, "1 2 3", "weights.txt")
        client.delete_run(run_id)
        [gc] = re.findall(r"exec mlflow (mlflow gc [^\n]*\\\n[^\n]*)", TEXT)
        here = gc.replace("\\\n", " ").replace("30d", "0s").replace("http://localhost:5000", server.url)
        here = re.sub(r"postgresql\S+", f"sqlite:///{tmp_path}/mlflow.db", here)
        forks.run(["-m", *here.split()], timeout=240, env=os.environ, check=True)
        patch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-password")
        with pytest.raises(mlflow.MlflowException, match="403"):
            client.create_run("0")  # it may be read only: somebody else has made it
        assert client.create_run(client.create_experiment("ships")).info.run_id
    assert list((tmp_path / "artifacts").rglob("weights.txt")) == []


def test_services_volumes_and_variables_in_the_text_exist() -> None:
    document = compose(FILLED_IN)
    commands = " ".join(re.findall(r"docker compose (?:exec|logs|stop|run)[^\n|`]*", TEXT))
    named = set(re.findall(r"\b(?:mlflow-auth|postgres|migrate|secrets|objects|bucket)\b", commands))
    assert named <= set(document["services"])
    assert {f"{document['name']}_{one}" for one in document["volumes"]} >= set(
        re.findall(r"-v (mlflow_\w+):", TEXT)
    )
    assert document["networks"]["default"]["name"] == "mlflow"
    example = (DEPLOY / ".env.example").read_text()
    for name in set(
        re.findall(r"`(PUBLIC_HOST|PUBLISH_ADDRESS|WORKERS|COMPOSE_PROFILES|POSTGRES_PASSWORD)", TEXT)
    ):
        assert f"{name}=" in example


@pytest.mark.usefixtures("forked")
def test_the_lines_for_python_run() -> None:
    [code] = re.findall(r"```python\n(from mlflow_sysmetrics import LocalServer.*?)```", TEXT, re.DOTALL)
    # It is exported at the top of the package; the home of it is the same class.
    code = code.replace("from mlflow_sysmetrics import", "from mlflow_sysmetrics.server import")
    seen: list[int] = []
    program = code + "    seen.append(call(server.url, 'GET', '/health').status)\n"
    exec(program, {"mlflow": mlflow, "call": call, "seen": seen})
    mlflow.set_tracking_uri("")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    assert seen == [200]


# What shows each row of the table for those who come from the image of MLflow, by the beginning of the row: a file of
# deploy/ and a text in it. Its commands are followed by `nox -s docker`, as are those of the rows that are "the same".
_COMPOSE, _EXAMPLE, _TEXT = (
    (DEPLOY / name).read_text() for name in ("compose.yaml", ".env.example", "README.md")
)
SHOWN = {
    "`POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_DB`": (_EXAMPLE, r"POSTGRES_(USER|PASSWORD|DB)="),
    "`MLFLOW_BACKEND_STORE_URI: ": (
        _COMPOSE,
        r"MLFLOW_BACKEND_STORE_URI: postgresql\+psycopg2://postgres:5432/",
    ),
    "`container_name: mlflow`": (_COMPOSE, r"container_name: \$\{COMPOSE_PROJECT_NAME:-mlflow\}\s"),
    '`ports: "5001:5000"`': (_COMPOSE, r"PUBLISH_ADDRESS:-127.0.0.1\}:\$\{PUBLISH_PORT:-5001\}:5000"),
    "the volume `mlflow_data": (_COMPOSE, r'"artifacts:/mlflow/artifacts"'),
    "`./data:/app/data`": (_TEXT, r'volumes: \["./data:/app/data:ro"\]'),
    "a network such as": (_COMPOSE, r"name: \$\{COMPOSE_PROJECT_NAME:-mlflow\}"),
    "`healthcheck: curl": (_COMPOSE, r"c.request\('GET', '/health'\)"),
    '`docker logs mlflow \\| grep "connection"`': (_COMPOSE, r"container_name: .*-mlflow\}\s"),
    "`docker ps \\| grep postgres`": (
        _COMPOSE,
        r"container_name: \$\{COMPOSE_PROJECT_NAME:-mlflow\}-postgres",
    ),
    "`docker exec mlflow curl": (_COMPOSE, r"pg_isready"),
    "`docker exec mlflow mlflow db upgrade": (_COMPOSE, r'"mlflow", "db", "upgrade"'),
    "`docker exec mlflow ls": (_COMPOSE, r"/mlflow/artifacts"),
    "`mlflow server --workers=4`": (_EXAMPLE, r"^WORKERS="),
    "`docker exec sensor-trainer": (_TEXT, r"experiments/search\?max_results=10"),
    "the stage `Production`": (_TEXT, r"models:/NAME@production"),
}
COMING_FROM = re.findall(
    r"^\| (?!there)((?:\\\||[^|])*\S) \| .*\|$",
    TEXT.split("## If you come from")[1].split("\n## ")[0],
    re.MULTILINE,
)


@pytest.mark.parametrize(
    "there", [one for one in COMING_FROM if not one.startswith("---")], ids=lambda one: one[:30]
)
def test_what_takes_the_place_of_an_older_setup_is_there(there: str) -> None:
    [(text, pattern)] = [shown for beginning, shown in SHOWN.items() if there.startswith(beginning)]
    assert re.search(pattern, text, re.MULTILINE)


def test_no_row_of_an_older_setup_is_forgotten() -> None:
    assert all(any(there.startswith(one) for there in COMING_FROM) for one in SHOWN)
