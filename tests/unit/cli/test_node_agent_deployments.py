"""The side cars of deploy/node_agent call the command as it is."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.cli.node_agent import node_agent
from mlflow_sysmetrics.cli.program import WRONG_USE

pytestmark = pytest.mark.unit
FOLDER = Path(__file__).parents[3] / "deploy" / "node_agent"
RUN = "a" * 32
AS_IN_THE_PROGRAM: Mapping[str, Any] = {"help_option_names": ["-h", "--help"]}  # the command keeps it
# What systemd, Kubernetes and a shell put in place of a name, with letters that are valid in each.
SPECIFIERS = {"%i": RUN, "%H": "gpu-a01.example.org", "%S": "/var/lib"}


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(FOLDER / "mlflow-sysmetrics-node-agent@.service", encoding="utf-8")
    return parser


def job() -> Mapping[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: Mapping[str, Any] = yaml.safe_load((FOLDER / "job.yaml").read_text(encoding="utf-8"))
    return found


def side_car() -> Mapping[str, Any]:
    [container] = job()["spec"]["template"]["spec"]["initContainers"]
    return dict(container)


def of_systemd() -> list[str]:
    line = unit()["Service"]["ExecStart"]
    for name, value in SPECIFIERS.items():
        line = line.replace(name, value)
    return shlex.split(line)


def of_kubernetes() -> list[str]:
    return [re.sub(r"\$\((\w+)\)", lambda one: one[1].lower(), word) for word in side_car()["command"]]


def of_slurm() -> list[str]:
    script = (FOLDER / "job.sbatch").read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = [one for one in script.splitlines() if "node-agent" in one and not one.startswith("#")]
    words = shlex.split(line.replace('"$MLFLOW_RUN_ID"', RUN).rstrip("& "))
    return words[words.index("mlflow-sysmetrics") :]


@pytest.mark.parametrize("of", [of_systemd, of_kubernetes, of_slurm])
def test_the_command_accepts_the_command_line(of: Any) -> None:
    program, command, *arguments = of()
    assert (Path(program).name, command) == ("mlflow-sysmetrics", "node-agent")
    given = node_agent.make_context("node-agent", arguments, **AS_IN_THE_PROGRAM).params
    assert given["run_id"] in {RUN, "mlflow_run_id"}


def test_a_command_line_with_an_unknown_option_is_not_accepted() -> None:
    with pytest.raises(Exception, match="No such option"):
        node_agent.make_context("node-agent", ["--run-id", RUN, "--rank", "1"], **AS_IN_THE_PROGRAM)


def test_systemd_does_not_restart_what_stays_wrong() -> None:
    codes = {int(code) for code in unit()["Service"]["RestartPreventExitStatus"].split()}
    assert {WRONG_USE, 3} == codes <= node_agent.exits.keys()
    assert "server does not have the run" in node_agent.exits[3]


def test_the_agent_of_a_pod_ends_with_it_and_meets_the_training() -> None:
    agent = side_car()
    assert agent["restartPolicy"] == "Always"  # in an init container, which makes it a side car
    [training] = job()["spec"]["template"]["spec"]["containers"]
    mounts = [{one["mountPath"]: one["name"] for one in of["volumeMounts"]} for of in (agent, training)]
    assert mounts[0]["/tmp"] == mounts[1]["/tmp"]
    volumes = {one["name"] for one in job()["spec"]["template"]["spec"]["volumes"]}
    assert {*mounts[0].values(), *mounts[1].values()} == volumes
    assert "resources" not in agent


def test_the_script_is_one_and_ends_the_run_before_it_waits() -> None:
    script = (FOLDER / "job.sbatch").read_text(encoding="utf-8")
    checked = subprocess.run(["bash", "-n", os.fspath(FOLDER / "job.sbatch")], check=False)
    assert checked.returncode == 0
    assert script.index("set_terminated") < script.index("\nwait\n")
