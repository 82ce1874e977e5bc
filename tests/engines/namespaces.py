"""Two nodes on this machine, each with a network and a host name of its own, joined by a bridge.

    unshare --net --uts python namespaces.py DIRECTORY SCRIPT

Starts `mlflow server` on the bridge and the script with torchrun on both nodes, and writes the tags and the steps
of the run, whose id the script leaves in DIRECTORY/run, to DIRECTORY/found.json. All of it is in a network
namespace of its own, so nothing of it is left on the machine. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

from mlflow_sysmetrics import LocalServer

HUB = "10.77.0.254"
PORT = 29511
PATIENCE = 240
# A node waits for its end of the cable, which is put into its namespace from outside.
NODE = """
hostname "$1" && mount --bind hosts /etc/hosts && echo ready && read -r _
ip link set lo up && ip link set eth0 up && ip addr add "$2/24" dev eth0
shift 2
exec "$@"
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def node(directory: Path, number: int, command: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a command on a node whose address ends with a number."""
    started = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "bash",
            "-euc",
            NODE,
            "node",
            f"gpu-a0{number}",
            f"10.77.0.{number}",
            *command,
        ],
        env=environ,
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    ip("link", "add", f"cable{number}", "type", "veth", "peer", "name", "eth0", "netns", str(started.pid))
    ip("link", "set", f"cable{number}", "master", "hub", "up")
    started.stdin.write("go\n")
    started.stdin.close()
    return started


def main() -> None:
    directory, script = map(Path, sys.argv[1:])
    names = ["127.0.0.1 localhost", *(f"10.77.0.{number} gpu-a0{number}" for number in (1, 2))]
    (directory / "hosts").write_text("".join(f"{name}\n" for name in names))
    ip("link", "set", "lo", "up")
    ip("link", "add", "hub", "type", "bridge")
    ip("addr", "add", f"{HUB}/24", "dev", "hub")
    ip("link", "set", "hub", "up")
    with LocalServer(directory=directory / "server", host="0.0.0.0") as server:
        port = server.url.rpartition(":")[2]
        environ = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://{HUB}:{port}",
            "GLOO_SOCKET_IFNAME": "eth0",
        }
        meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"10.77.0.1:{PORT}"]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *meeting]
        nodes = [
            node(
                directory,
                number,
                [*command, "--local-addr", f"10.77.0.{number}", str(script), str(directory / "run")],
                environ,
            )
            for number in (1, 2)
        ]
        codes = [one.wait(PATIENCE) for one in nodes]
        client = MlflowClient(server.url)
        run = client.get_run((directory / "run").read_text())
        steps = {
            key: [point.step for point in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
    (directory / "found.json").write_text(json.dumps({"codes": codes, "tags": run.data.tags, "steps": steps}))


if __name__ == "__main__":
    main()
