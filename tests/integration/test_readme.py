"""README.md lists all settings and metrics."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


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
