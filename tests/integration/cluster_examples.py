"""Runs the commands of examples/cluster/README.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from programs import QUIET, Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster"
BLOCKS = re.findall(
    r"^```bash\n(.*?)^```\n\n```text\n(.*?)^```$",
    (EXAMPLE / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
SECONDS = "10"  # the other nodes look for the run after 1 and 4 s
PATIENCE = 400


def block(program: str) -> tuple[str, str]:
    """Returns the commands that start a program, and what they print."""
    [found] = [(commands, shown) for commands, shown in BLOCKS if program in commands]
    return found


def run(commands: str, store: Store, folder: Path, **more: str) -> str:
    """Runs the commands of the README and returns what they print."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {
        **os.environ,
        **QUIET,
        "MLFLOW_TRACKING_URI": store.uri,
        "SECONDS_TO_TRAIN": SECONDS,
        "PATH": programs,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),
        **more,
    }
    torchrun = f"{sys.executable} -m torch.distributed.run"  # a program of the environment that has torch
    done = subprocess.run(
        ["bash", "-euc", commands.replace("torchrun --", f"{torchrun} --")],
        cwd=EXAMPLE,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if line.startswith("system"))
