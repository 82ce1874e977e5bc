"""Every Python block of README.md and docs/training.md runs, and README.md lists all settings and metrics."""

from __future__ import annotations

import os
import re
from pathlib import Path

import forks
import pytest
from programs import PATIENT, QUIET, Store

README = Path(__file__).parents[2] / "README.md"
PAGES = (README, README.parent / "docs" / "training.md")
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(
        r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1][:40])
def test_every_python_block_runs(block: str, store: Store, tmp_path: Path) -> None:
    environ = {**os.environ, **QUIET, **PATIENT, "MLFLOW_TRACKING_URI": store.uri}
    done = forks.run(
        ["-c", block],
        env=environ,
        cwd=tmp_path,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    if "LocalServer" in block:  # its runs are on a server that has stopped
        return
    own = re.search(r'tracking_uri="sqlite:///(.+?)"', block)
    if own is not None:
        store = Store(f"sqlite:///{tmp_path / own[1]}")
    experiments = [one.experiment_id for one in store.client.search_experiments()]
    runs = store.client.search_runs(experiments)
    assert runs
    assert all(any(key.startswith("system/") for key in run.data.metrics) for run in runs)
    assert all("sys.cpu" in run.data.tags for run in runs if "mlflow.source.name" in run.data.tags)


def test_every_setting_is_explained() -> None:
    from mlflow_sysmetrics import settings

    text = README.read_text(encoding="utf-8")
    names = [
        value for value in vars(settings).values() if isinstance(value, str) and value.startswith("MLFLOW_")
    ]
    assert len(names) >= 9
    for name in names:
        assert f"`{name}`" in text, name


def test_every_metric_is_listed() -> None:
    from mlflow_sysmetrics.collectors import LINUX, load_classes

    text = README.read_text(encoding="utf-8")
    for metric in (metric for collector in load_classes(LINUX) for metric in collector.metrics):
        assert f"`{metric.name}`" in text, metric.name
