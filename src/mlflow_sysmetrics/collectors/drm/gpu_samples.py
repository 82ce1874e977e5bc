"""Samples of one GPU, with keys that are made once."""

from __future__ import annotations

from collections.abc import Iterable

from mlflow_sysmetrics.samples import Metric, Sample


class GpuSamples:
    """Makes the samples of a GPU.

    Args:
        ordinal: its number in the keys.
        metrics: the metrics that it may have.
    """

    def __init__(self, ordinal: int, metrics: Iterable[Metric]) -> None:
        self.ordinal = ordinal
        # By name, since hashing a metric covers all its texts, which costs more than a reading.
        self._keys = {metric.name: metric.key(i=ordinal) for metric in metrics}

    def of(self, metric: Metric, value: float, span: float | None = None) -> Sample:
        """Returns a sample of a metric."""
        return Sample(self._keys[metric.name], metric.kind, value, span)
