"""Every example of docs/how_to/adapters.md runs and records what the page says."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from adapter_program import Trained, run_program

PAGE = Path(__file__).parents[3] / "docs" / "how_to" / "adapters.md"
EXAMPLES = dict(
    re.findall(
        r"^## ([^\n]+)\n\n```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
)
ABSENT = [
    name for name in ("lightning", "transformers", "accelerate", "keras", "ignite") if find_spec(name) is None
]
if ABSENT:
    pytest.skip(f"not installed: {', '.join(ABSENT)}", allow_module_level=True)

# One interpreter for all: importing the frameworks takes longer than running the examples.
PROGRAM = f"""
client = mlflow.MlflowClient()
uri = os.environ["MLFLOW_TRACKING_URI"]
for name, example in {EXAMPLES!r}.items():
    exec(compile(example.replace("sqlite:///runs.db", uri), name, "exec"), {{"__name__": "__main__"}})
    everywhere = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(everywhere, order_by=["start_time DESC"])
    tell(name, runs[0].info.run_id, runs=len(runs))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("examples", PROGRAM, tmp_path_factory, empty_database)


def test_there_is_an_example_for_each_framework() -> None:
    assert list(EXAMPLES) == ["Lightning", "Hugging Face", "Keras", "Ignite"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_records_everything_on_its_run(trained: Trained, name: str) -> None:
    assert trained.returncode == 0, trained.stderr
    assert trained.told[name]["runs"] == list(EXAMPLES).index(name) + 1
    assert trained.status(name) == "FINISHED"
    assert {
        "train/loss_step",
        "train/learning_rate",
        "train/batch_time_seconds",
        "epoch/train_loss",
        "epoch/val_loss",
        "epoch/duration_seconds",
        "final/best_epoch",
        "final/total_epochs",
        "final/total_steps",
        "final/early_stopped",
        "final/duration_seconds",
    } <= trained.ours(name)
    assert "system/system_memory_usage_percentage" in trained.metrics(name)
