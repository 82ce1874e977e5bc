"""Submits the job, like a service that takes jobs from its users.

Usage: python submit.py JOBS NAME TRACKING_URI
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def submit(jobs: Path, name: str, tracking_uri: str) -> int:
    """Runs a job in a new process, with its own directory, and returns its exit status."""
    directory = (jobs / name).absolute()
    directory.mkdir(parents=True)
    with (directory / "output.txt").open("w") as output:
        job = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("job.py"))],
            env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "JOB_DIRECTORY": str(directory)},
            stdout=output,
            stderr=output,
            check=False,
        )
    return job.returncode


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print("exit status", submit(Path(sys.argv[1]), *sys.argv[2:]))
