"""The example in examples/submitted_job does what its README says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import forks
import pytest
from programs import QUIET, Store

from mlflow_sysmetrics.preflight.status_files.files import read_status

EXAMPLE = Path(__file__).parents[3] / "examples" / "submitted_job"
COMMANDS = re.findall(
    r"^```bash\n(.*?)^```$", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
PATIENCE = 300  # each job imports MLflow: 2 s on an idle machine, half a minute on a busy one


def follow(commands: str, folder: Path) -> str:
    """Runs the commands of a README in a copy of the example, and returns their output."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    printed = ""
    for line in commands.splitlines():
        program, *arguments = line.split()
        assert program == "python"
        done = forks.run(
            [*arguments],
            cwd=folder,
            env={**os.environ, **QUIET},
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    return printed


@pytest.fixture(scope="module")
def without_server(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory of the first job, and what show.py printed."""
    folder = tmp_path_factory.mktemp("example")
    return folder, follow(COMMANDS[0], folder)


def test_a_job_without_a_server_is_shown_as_failed_with_its_reason(
    without_server: tuple[Path, str],
) -> None:
    _, shown = without_server
    assert shown.startswith("exit status 1\nfirst: failed at ")
    assert "ServerUnreachableError, step 1: " in shown
    assert "attempt 2: Connection refused" in shown


def test_a_job_without_a_server_does_not_train(without_server: tuple[Path, str]) -> None:
    folder, _ = without_server
    assert "training step" not in (folder / "jobs" / "first" / "output.txt").read_text()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_job_with_a_store_is_shown_as_completed_with_its_run(store: Store, tmp_path: Path) -> None:
    database = Path(store.uri.removeprefix("sqlite:///"))
    assert database == tmp_path / "runs.db"  # as in README, and made in advance, which takes half as long
    shown = follow(COMMANDS[1], tmp_path)
    status = read_status(tmp_path / "jobs" / "second")
    assert shown.startswith("exit status 0\nsecond: completed at ")
    assert f"run {status.run_id} in experiment submitted-job" in shown
    assert store.client.get_run(status.run_id).data.metrics["loss"] == pytest.approx(1 / 3)
