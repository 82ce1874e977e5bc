"""Completes the summary and the verdict of a run whose process died, from the points that the server has."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_sysmetrics.mlflow_api.runs import ClientRuns, Metric
from mlflow_sysmetrics.report.histories import NodeSummary, summarise
from mlflow_sysmetrics.report.measured_runs import Server, read_history, read_run, split_key
from mlflow_sysmetrics.summary.description import NOTE_TAG, block, verdict_line, with_block
from mlflow_sysmetrics.summary.run_statistics import is_summarised
from mlflow_sysmetrics.summary.summary import FIGURES, PREFIX, VERDICT_TAG

_MILLISECONDS = 1000
_DIGITS = 6
_WHOLE = 0.97  # a run that had so much of its GPUs for itself had all of them: readings are not exact
_SHARED = frozenset(figure.name for figure in FIGURES if figure.over_nodes == "sum")


def complete(server: Server, run_id: str, *, describe: bool) -> bool:
    """Writes the summary of a run, as its process would have done at its end.

    Args:
        server: the tracking server.
        run_id: the run.
        describe: whether the verdict becomes part of the Description.

    Returns:
        False if the run has no system metrics.

    Raises:
        Fault: the server does not answer, or does not take it.
    """
    run = read_run(server, run_id)
    keys = [] if run is None else [key for key in run.series if is_summarised(split_key(key)[1])]
    if run is None or not keys:
        return False
    histories = {key: read_history(server, run_id, key) for key in keys}
    found = summarise(histories, run.tags)
    ends = max((points[-1][0] for points in histories.values() if points), default=run.started_at)
    step = max(ends - run.started_at, 0) // _MILLISECONDS
    metrics = [
        Metric(key, round(value, _DIGITS), ends, step)
        for node in found.nodes
        for key, value in _metrics(node, run.metrics).items()
    ]
    tags = {}
    if found.verdicts:
        tags[VERDICT_TAG] = verdict_line(found.verdicts)
        text = with_block(run.tags.get(NOTE_TAG, ""), block(found.verdicts, found.figures, run_id))
        if describe and text is not None:
            tags[NOTE_TAG] = text
    ClientRuns(server.client, server.uri).log_batch(run_id, metrics, tags)
    return True


def _metrics(node: NodeSummary, before: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures of a node as metrics, with the run's share of what it shared with other runs."""
    share = _share(node, before)
    return {
        key: value * share if key.rpartition("/")[2] in _SHARED else value
        for key, value in node.whole.metrics().items()
    }


def _share(node: NodeSummary, before: Mapping[str, float]) -> float:
    """Returns how much of its GPU-hours was the run's, as far as its process has said; 1 if it has not."""
    where = f"{PREFIX}{node.whole.node}/" if node.whole.node else PREFIX
    hours, measured = before.get(f"{where}gpu_hours"), before.get(f"{where}measured_hours")
    if not hours or not measured or not node.whole.gpus:
        return 1.0
    share = hours / (measured * len(node.whole.gpus))
    return 1.0 if share >= _WHOLE else share
