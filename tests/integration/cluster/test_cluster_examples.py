"""The programs of examples/cluster print what their README says; Ray's is run by `nox -s engines`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import QUIET, Store

EXAMPLE = Path(__file__).parents[3] / "examples" / "cluster"
BLOCKS = re.findall(
    r"^```bash\n(.*?)^```\n\n```text\n(.*?)^```$",
    (EXAMPLE / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
NEEDED = {"torchrun": "torch", "dask": "distributed", "ray": "ray"}
SECONDS = "10"  # the other nodes look for the run after 1, 2 and 4 s
PATIENCE = 400


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["torchrun", "dask"])
def test_a_program_prints_the_sections_of_its_run(name: str, store: Store, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED[name])
    [(commands, shown)] = [one for one in BLOCKS if f"train_{name}.py" in one[0]]
    assert run(commands, store, tmp_path) == shown


def run(commands: str, store: Store, folder: Path) -> str:
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
