"""The example in examples/hpo does what its README says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import forks
from hpo_programs import study_of
from programs import PATIENT, QUIET, Store

from installed import require

require("optuna", reason="Optuna is not installed")
require("torch", reason="PyTorch is not installed")
require("sklearn", reason="scikit-learn is not installed")

EXAMPLE = Path(__file__).parents[3] / "examples" / "hpo"


def test_the_example_runs_thirty_trials_of_which_some_are_pruned_and_some_fail(
    store: Store, tmp_path: Path
) -> None:
    (line,) = re.findall(r"^```bash\npython (\S+)\n^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    shutil.copytree(EXAMPLE, tmp_path / "example")
    done = forks.run(
        [line, store.uri, "sqlite:///study.db"],
        cwd=tmp_path / "example",
        env={**os.environ, **QUIET, **PATIENT},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"30 trials: (\d+) completed, (\d+) pruned, (\d+) failed", done.stdout)
    assert said is not None, done.stdout
    completed, pruned, failed = (int(count) for count in said.groups())
    assert min(completed, pruned, failed) > 0
    study = study_of(store.uri, "digits")
    ends = list(study.statuses().values())
    assert [ends.count(end) for end in ("FINISHED", "KILLED", "FAILED")] == [completed, pruned, failed]
    own = {key for run in study.trials.values() for key in run.data.metrics if not key.startswith("system/")}
    assert own == {
        "epoch/train_loss",
        "epoch/val_f1_macro",
        "trial/val_f1_macro",
        "trial/number",
        "trial/duration_seconds",
        "trial/intermediate_value",
    }
