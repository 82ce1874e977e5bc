"""Several programs register and promote versions of one model on one server at the same time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import forks
import pytest
from programs import Store

from installed import require
from mlflow_sysmetrics import LocalServer

require("sklearn")

TOGETHER = 3
REGISTER = """
import sys, mlflow
from sklearn.linear_model import LinearRegression
from mlflow_sysmetrics.training.registry import register_model
model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
run = mlflow.MlflowClient().create_run("0")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    made = register_model(model, "ships", [[1.0]], "Production", {"of": run.info.run_id}, "whole",
                          run_id=run.info.run_id, pip_requirements=["mlflow"])
    print("made", made.version, flush=True)
"""
PROMOTE = """
import sys
from mlflow_sysmetrics.training.registry import promote
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    promote("ships", sys.argv[1], "Production")
"""


@pytest.fixture
def server(store: Store, forked: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real tracking server."""
    directory = tmp_path_factory.mktemp("server")
    with LocalServer(store.uri, directory=directory, start_timeout=240) as running:
        yield Store(running.url)


def together(uri: str, code: str, arguments: list[str]) -> str:
    """Runs programs that start at the same moment and returns what they printed."""
    environ = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_CONTEXT_PROVIDER": "none"}
    programs = [
        forks.popen(
            ["-c", code, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for argument in arguments
    ]
    try:
        for one in programs:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n", one.communicate()[1]
        for one in programs:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        left = [one.communicate(timeout=300) for one in programs]
    finally:
        for one in programs:
            one.kill()
    assert [one.returncode for one in programs] == [0] * len(programs), "\n".join(said for _, said in left)
    return "".join(printed for printed, _ in left)


def test_versions_can_be_registered_and_promoted_at_the_same_time(server: Store) -> None:
    printed = together(server.uri, REGISTER, [""] * TOGETHER)
    made = sorted(int(word) for word in printed.split() if word.isdecimal())
    assert made == list(range(1, 3 * TOGETHER + 1))
    versions = server.client.search_model_versions("name='ships'")
    assert {(one.description, one.tags["of"]) for one in versions} == {
        ("whole", one.run_id) for one in versions
    }
    in_production = [int(one.version) for one in versions if one.current_stage == "Production"]
    assert in_production == [int(server.client.get_model_version_by_alias("ships", "production").version)]

    together(server.uri, PROMOTE, ["1", "2", "3"])
    versions = server.client.search_model_versions("name='ships'")
    in_production = [int(one.version) for one in versions if one.current_stage == "Production"]
    assert in_production == [int(server.client.get_model_version_by_alias("ships", "production").version)]
