"""The example in examples/training records what its README says, and nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import forks
import pytest
from programs import QUIET, Store

from installed import require

require("torch", "ignite", "sklearn")

EXAMPLE = Path(__file__).parents[3] / "examples" / "training"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
TABLE = dict(line.strip("| ").split(" | ", 1)[::-1] for line in README.splitlines() if line.startswith("| `"))
BATCHES = 47  # per epoch


def named(axis: str) -> set[str]:
    """Returns the names that the README lists with an axis."""
    (row,) = [names for one, names in TABLE.items() if one.startswith(axis)]
    return {name for name in re.findall(r"`([^`]+)`", row) if not name.endswith("...")}


@pytest.mark.every_database
def test_every_name_has_the_axis_that_the_readme_says(store: Store, tmp_path: Path) -> None:
    command = re.search(r"^python train.py (\w+)$", README, re.MULTILINE)
    assert command is not None

    def run() -> str:
        return forks.run(
            [EXAMPLE / "train.py", command[1]],
            cwd=tmp_path,
            env={**os.environ, **QUIET, "MLFLOW_TRACKING_URI": store.uri, "CUDA_VISIBLE_DEVICES": ""},
            timeout=400,
            check=True,
        ).stdout

    printed = run()
    run_id = printed.split()[1]
    assert set(re.findall(r"^(\w+):", printed, re.MULTILINE)) == set(
        re.findall(r"^(\w+): [\dTF]", README, re.MULTILINE)
    )
    found = {
        key: [point.step for point in store.points(run_id, key)]
        for key in store.client.get_run(run_id).data.metrics
    }
    last = max(found["epoch/train_loss"])
    total = last * BATCHES
    expected = {key: [1, *range(20, total + 1, 20)] for key in named("steps: 1,")}
    expected |= {key: [*range(1, last + 1)] for key in named("epochs")}
    expected |= {key: [total] for key in named("the last step")}
    expected |= {key: [*range(10, total + 1, 10)] for key in named("steps: 10")}
    assert {key: steps for key, steps in found.items() if key in expected} == expected
    others = set(found) - set(expected)
    assert others <= store.keys(run_id)  # the system metrics that every run has
    assert [one.path for one in store.client.list_artifacts(run_id, "checkpoints")] == [
        "checkpoints/best_checkpoint.pt"
    ]
    assert run() == printed  # a finished training is not repeated
