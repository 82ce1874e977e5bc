"""The server of deploy/ is started, killed, backed up, restored and upgraded, as its README says.

The tests share one installation and run in the order in which a user would do this.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path

import mlflow
import pytest
from deployments import PREVIOUS, README, Deploy, Deployment, blocks

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's client, which warns of its libraries
STEPS = 60

TRAIN = """
import mlflow, numpy
from sklearn.linear_model import LinearRegression
mlflow.set_experiment("sensors")
with mlflow.start_run() as run:
    mlflow.log_param("rate", 0.1)
    mlflow.log_metrics({"loss": 0.25})
    mlflow.log_text("1 2 3", "weights.txt")
    model = LinearRegression().fit(numpy.array([[0.0], [1.0]]), [0.0, 2.0])
    mlflow.sklearn.log_model(model, name="model", registered_model_name="sensor")
mlflow.MlflowClient().set_registered_model_alias("sensor", "production", "1")
print(run.info.run_id)
"""
# A training that lasts through the outages; its points are of its own and of the system.
LAST = """
import mlflow, time
from mlflow_sysmetrics import MetricRecorder
mlflow.set_experiment("sensors")
with mlflow.start_run(run_name="outage") as run:
    print(run.info.run_id, flush=True)
    with MetricRecorder() as recorder:
        for step in range({steps}):
            recorder.step(step, error=1 / (step + 1))
            time.sleep(1)
print("trained", flush=True)
"""
EVERY_SECOND = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "1",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "120",
}


@pytest.fixture(scope="module")
def server(deploy: Deploy) -> Deployment:
    """An installation of the previous version, with a user and a database of its own names."""
    made = deploy(
        COMPOSE_PROFILES="open", MLFLOW_VERSION=PREVIOUS, POSTGRES_USER="sensor user", POSTGRES_DB="sensor-db"
    )
    made.start()
    return made


@pytest.fixture(scope="module")
def run_id(server: Deployment, image: str) -> str:
    """A run of another container, with an artifact and a registered model."""
    return server.program(image, TRAIN).split()[-1]


def check(server: Deployment, run_id: str) -> None:
    """Reads the run back from this machine, all of it."""
    client = mlflow.MlflowClient(server.url)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["rate"], run.data.metrics["loss"]) == ("FINISHED", "0.1", 0.25)
    assert any(key.startswith("system/") for key in run.data.metrics)
    assert client.get_model_version_by_alias("sensor", "production").run_id == run_id
    assert server.get(f"/get-artifact?path=weights.txt&run_uuid={run_id}") == (200, "1 2 3")


def test_a_run_of_another_container_is_read_back(server: Deployment, run_id: str) -> None:
    check(server, run_id)
    assert server.get("/version") == (200, PREVIOUS)


def test_postgresql_and_the_server_are_killed_and_nothing_is_lost(server: Deployment, image: str) -> None:
    trainer = f"{server.docker.prefix}-trainer"
    server.program(image, LAST.format(steps=STEPS), name=trainer, **EVERY_SECOND)
    try:
        client = mlflow.MlflowClient(server.url)
        while not (begun := server.docker("logs", trainer).split()):
            time.sleep(0.5)
        for killed in (f"{server.project}-postgres", server.project):
            time.sleep(8)  # points arrive
            server.docker("kill", killed)
            time.sleep(8)  # points do not
            server.compose("up", "--detach")
        assert server.docker("wait", trainer, timeout=400) == "0", server.docker.run("logs", trainer).stderr
        server.wait(server.project)
        history = client.get_metric_history(begun[0], "train/error")
        assert sorted(point.step for point in history) == list(range(STEPS))
        times = sorted(
            point.timestamp
            for point in client.get_metric_history(begun[0], "system/cpu_utilization_percentage")
        )
        assert times[-1] - times[0] > (STEPS - 5) * 1000
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert max(gaps) < 2500, "a point is missing"
        assert client.get_run(begun[0]).info.status == "FINISHED"
    finally:
        server.docker.run("rm", "--force", trainer)


def test_a_backup_is_restored_into_an_empty_installation(server: Deployment, run_id: str) -> None:
    backup, restore = blocks("Back up and restore")
    server.follow(backup)
    assert (server.directory / "mlflow.dump").stat().st_size
    server.compose("down", "--volumes")
    server.follow(restore)
    server.wait(server.project)
    check(server, run_id)


def test_an_upgrade_keeps_everything(server: Deployment, run_id: str) -> None:
    current = re.search(
        r"^MLFLOW_VERSION=(.*)$", (server.directory / ".env.example").read_text(), re.MULTILINE
    )[1]
    # The table's own failure first: a server that is newer than its tables does not start.
    [upgrade] = blocks("Upgrade")
    stop, _, rest = upgrade.partition("# back up")
    server.follow(stop.replace(" mlflow-auth   # whichever runs", ""))
    server.configure(MLFLOW_VERSION=current)
    server.follow("\n".join(line for line in rest.splitlines() if line.startswith("docker")))
    server.wait(server.project)
    assert server.get("/version") == (200, current)
    check(server, run_id)


def test_a_server_without_its_upgrade_says_so_and_does_not_start(server: Deployment) -> None:
    # The previous version on the tables of the current one is the same to the check as the reverse.
    address = "postgresql+psycopg2://postgres:5432/"
    image = f"{server.project}-postgresql:{PREVIOUS}"
    environ = [
        "--env=PGUSER=sensor user",
        "--env=PGDATABASE=sensor-db",
        "--env",
        f"PGPASSWORD={_password(server)}",
    ]
    done = server.docker.run(
        *("run", "--rm", "--label", server.docker.label, "--network", server.project, *environ, image),
        *("mlflow", "server", "--backend-store-uri", address),
        timeout=120,
    )
    assert done.returncode != 0
    assert "out-of-date database schema" in done.stdout + done.stderr


def _password(server: Deployment) -> str:
    return re.search(r"^POSTGRES_PASSWORD='(.*)'$", (server.directory / ".env").read_text(), re.MULTILINE)[1]


def test_what_helps_when_something_is_wrong(server: Deployment, run_id: str) -> None:
    """The commands of the section and of its table."""
    shown = server.follow("docker compose logs mlflow migrate postgres")
    assert "database system is ready to accept connections" in shown
    assert "Uvicorn running" in shown
    assert "Uvicorn running" in server.follow("docker logs mlflow")
    status, text = server.get("/api/2.0/mlflow/experiments/search?max_results=10")
    assert status == 200
    assert "sensors" in text
    # The password is set by the table's command, and the server still gets in with the one of .env.
    [command] = re.findall(r"`(docker compose exec postgres [^`]*password[^`]*)`", README)
    changed = server.shell(
        ["bash", "-c", command.replace("docker compose exec", f"{' '.join(server.command)} exec -T")],
        input=f"{_password(server)}\n" * 2,
    )
    assert "ERROR" not in changed.stderr
    server.compose("restart", "mlflow")
    server.wait(server.project)
    check(server, run_id)
    assert _rejects(server, "elsewhere.example.org")


def _rejects(server: Deployment, host: str) -> bool:
    code = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', 5000); "
        f"c.request('GET', '/api/2.0/mlflow/experiments/search?max_results=1', headers={{'Host': '{host}'}}); "
        "a = c.getresponse(); print(a.status, a.read().decode())"
    )
    return server.docker("exec", server.project, "python", "-c", code).startswith("403 Invalid Host header")


def test_who_comes_from_the_official_image_finds_their_commands(server: Deployment, image: str) -> None:
    """Each command of the right column, and of the left where it says "the same"."""
    section = README.split("\n## If you come from ")[1]
    rows = [
        line.replace("\\|", "\x00").split("|")[1:3] for line in section.splitlines() if line.startswith("| ")
    ]
    commands: list[str] = []
    for there, here in rows:
        source = there if here.strip().startswith("the same") else here
        commands += [text.replace("\x00", "|") for text in re.findall(r"`(docker [^`]*)`", source)]
    followed = [one for one in commands if "OLD:" not in one]
    assert len(followed) >= 7
    for one in followed:
        if "migrate" in one:
            server.compose("stop", "mlflow")
        shown = server.follow(
            one, check="grep" not in one
        )  # a server that is well has nothing to say of connections
        assert "No such container" not in shown
        server.compose("up", "--detach")
        server.wait(server.project)
    [request] = re.findall(r"`curl -s '(http://mlflow:5000[^']*)'`", section)
    fetch = f"import urllib.request; print(urllib.request.urlopen('{request}').read().decode())"
    assert "sensors" in server.program(image, fetch)
    checked = server.docker.run(
        *("run", "--rm", "--label", server.docker.label, "--network", server.project, image),
        *("mlflow-sysmetrics", "check", "--tracking-uri", "http://mlflow:5000"),
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_artifact_volume_of_another_name_is_taken_over(server: Deployment, run_id: str) -> None:
    [copy] = re.findall(r"`(docker run --rm -v OLD:[^`]*)`", README)
    old = f"{server.project}-old"
    label = server.docker.label
    server.docker("volume", "create", "--label", label, old)
    server.docker(
        *("run", "--rm", "--label", label, "-v", f"{server.project}_artifacts:/a", "-v", f"{old}:/old"),
        *("busybox", "sh", "-c", "cp -a /a/. /old && rm -r /a/*"),
    )
    assert server.get(f"/get-artifact?path=weights.txt&run_uuid={run_id}")[0] != 200
    server.follow(copy.replace("OLD", old))
    check(server, run_id)


def test_a_data_mount_of_ones_own(server: Deployment) -> None:
    [override] = re.findall(r"```yaml\n(services:\n  mlflow:\n.*?)```", README, re.DOTALL)
    (server.directory / "compose.override.yaml").write_text(override)
    (server.directory / "data").mkdir()
    (server.directory / "data" / "sensors.csv").write_text("1,2,3\n")
    server.compose("up", "--detach")
    server.wait(server.project)
    assert server.docker("exec", server.project, "cat", "/app/data/sensors.csv") == "1,2,3"


def test_deleted_runs_are_pruned(server: Deployment) -> None:
    client = mlflow.MlflowClient(server.url)
    run = client.create_run("0").info.run_id
    client.delete_run(run)
    [prune] = blocks("Prune")
    server.follow(prune.replace("30d", "0s").replace("exec", "exec -T"))
    with pytest.raises(mlflow.MlflowException, match="not found"):
        client.get_run(run)


def test_optuna_has_a_database_of_its_own(server: Deployment, image: str) -> None:
    server.configure(COMPOSE_PROFILES="open,optuna", OPTUNA_PASSWORD='it\'s "quoted"'.replace("'", ""))
    for _ in range(2):  # the second time there is nothing to do
        server.compose("up", "--detach")
        server.compose("up", "optuna")
    code = """
import psycopg2, sys
def tables(database):
    with psycopg2.connect(host="postgres", user="optuna", password=sys.argv[1], dbname=database) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS studies (id int)")
    return "made"
print(tables("optuna"))
try:
    print(tables("sensor-db"))
except psycopg2.OperationalError as error:
    print(error)
"""
    shown = server.docker(
        *("run", "--rm", "--label", server.docker.label, "--network", server.project),
        *(_image(server), "python", "-c", code, 'its "quoted"'),
    )
    assert shown.startswith("made")
    assert 'permission denied for database "sensor-db"' in shown


def _image(server: Deployment) -> str:
    return server.docker("inspect", "--format", "{{.Config.Image}}", server.project)


def test_a_registered_model_answers_requests(server: Deployment, run_id: str) -> None:
    server.configure(COMPOSE_PROFILES="open,serve", MODEL_URI="models:/sensor@production")
    server.compose("up", "--detach")
    server.wait(f"{server.project}-model")
    port = int(re.search(r"^MODEL_PORT='(\d+)'$", (server.directory / ".env").read_text(), re.MULTILINE)[1])
    status, text = server.get("/invocations", port, {"inputs": [[1.0], [2.0]]})
    assert status == 200, text
    assert json.loads(text)["predictions"] == pytest.approx([2.0, 4.0])
    [request] = re.findall(r"^curl (http://localhost:5002/invocations .*)$", README, re.MULTILINE)
    assert "inputs" in request
    server.compose("restart", "model")
    server.wait(f"{server.project}-model")


def test_it_is_taken_down_and_leaves_its_volumes(server: Deployment, run_id: str) -> None:
    server.configure(COMPOSE_PROFILES="open,optuna,serve")  # Compose takes down the profiles that are chosen
    server.compose("down")
    names = server.docker("ps", "--all", "--format", "{{.Names}}").split()
    assert not [name for name in names if name.startswith(server.project)]
    server.configure(COMPOSE_PROFILES="open")
    server.compose("up", "--detach")
    server.wait(server.project)
    check(server, run_id)
    server.compose("down", "--volumes")
    assert not server.docker("volume", "ls", "--quiet", "--filter", f"name={server.project}_")
    assert not Path(server.directory / "mlruns").exists()
