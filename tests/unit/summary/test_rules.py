"""Verdicts of simulated runs: each kind has its own and only that, and what users complain of stays silent."""

from __future__ import annotations

import itertools
import random

import pytest

from mlflow_sysmetrics.summary.rules import (
    HEALTHY,
    RULES,
    WARM_UP_SECONDS,
    WARM_UP_SHARE,
    verdicts,
    verdicts_of_nodes,
)
from mlflow_sysmetrics.summary.run_statistics import RunStatistics
from mlflow_sysmetrics.summary.summary import Summary, Surroundings
from simulated_ticks import CPU, FINE, GPU_NODE, KINDS, MEMORY, SILENT, Tick, gpu, host, start_up, steady


def measured(
    tick: Tick, minutes: float = 60, around: Surroundings = GPU_NODE, node: str = "", every: int = 5
) -> tuple[Summary, Summary]:
    """Returns the summaries of a run, whole and without its beginning."""
    warm_up = max(WARM_UP_SECONDS, WARM_UP_SHARE * minutes * 60)
    part = whole = RunStatistics()
    settled = None
    for second in range(0, int(minutes * 60), every):
        if settled is None and second >= warm_up:
            part = settled = whole.continued()
        part.add(tick(second), every)
    settled = settled or RunStatistics()
    rest = settled.summary(node, around)
    whole.merge(settled)
    return whole.summary(node, around), rest


def names(tick: Tick, minutes: float = 60, around: Surroundings = GPU_NODE, every: int = 5) -> list[str]:
    return [one.name for one in verdicts(*measured(tick, minutes, around, every=every))]


CASES = list(KINDS)


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_run_has_its_verdict_and_only_that(name: str) -> None:
    tick, around = KINDS[name]
    assert names(tick, 75, around) == [name]


def test_every_rule_is_shown_by_a_run() -> None:
    assert {rule.name for rule in RULES} == set(KINDS)


@pytest.mark.parametrize("name", SILENT)
def test_what_users_complain_of_stays_silent(name: str) -> None:
    tick, minutes, around = SILENT[name]
    expected = [HEALTHY] if name in FINE else []
    assert names(tick, minutes, around) == expected


def test_a_long_start_up_is_not_taken_for_starving() -> None:
    assert names(start_up(20), 24 * 60, every=30) == [HEALTHY]


def test_a_notebook_that_idles_for_a_working_day_is_named() -> None:
    around = Surroundings(cores=16, gpus=1, interactive=True)
    tick = lambda _: {**host(3), **gpu(used=0, filled=0.6, own=None)}  # noqa: E731
    assert names(tick, 500, around) == ["gpu-unused"]


@pytest.mark.parametrize(
    "absent", [CPU, MEMORY, "gpu_0_utilization_percentage", "gpu_0_throttled_percentage"]
)
def test_an_absent_input_is_never_healthy(absent: str) -> None:
    assert names(lambda second: {k: v for k, v in steady(second).items() if k != absent}) == []


def test_a_gpu_of_the_tags_that_is_not_measured_is_not_healthy() -> None:
    assert names(steady, 60, Surroundings(cores=16, gpus=2)) == []


def test_an_oom_kill_is_named_at_once() -> None:
    (found,) = verdicts(*measured(lambda _: {**host(), "memory_oom_kills": 1.0}, 1))
    assert found.name == "near-out-of-memory"
    assert "killed 1 of its processes" in found.text


def test_kills_of_a_resumed_run_are_added() -> None:
    counts = itertools.chain([0, 0, 2, 2, 0, 1], itertools.repeat(1))
    whole, _ = measured(lambda _: {"memory_oom_kills": float(next(counts))}, 2)
    assert whole.oom_kills == 3


def test_a_healthy_run_on_noisy_gpus_is_healthy() -> None:
    draw = random.Random(5)
    tick = lambda _: {**host(), **gpu(0, draw.gauss(88, 6)), **gpu(1, draw.gauss(88, 6))}  # noqa: E731
    assert names(tick, 60, Surroundings(cores=32, gpus=2)) == [HEALTHY]


def test_a_verdict_is_number_usual_cause_and_step() -> None:
    for name in CASES:
        tick, around = KINDS[name]
        (found,) = verdicts(*measured(tick, 75, around))
        assert any(map(str.isdigit, found.text)), name
        assert found.source.startswith("https://")
        assert "{" not in found.text
        assert len(found.text) < 400
        assert found.text[0] != "0"


def test_a_node_that_lags_behind_the_others_is_named() -> None:
    nodes = [
        measured(lambda _, used=used: {**host(), **gpu(0, used)}, node=str(node))  # type: ignore[misc]
        for node, used in enumerate((90, 91, 55))
    ]
    (found,) = verdicts_of_nodes(nodes)
    assert (found.name, found.node) == ("straggler", "2")


def test_a_run_is_healthy_if_all_its_nodes_are() -> None:
    good = measured(steady, node="0")
    unknown = measured(lambda _: host(), node="1")
    assert [one.name for one in verdicts_of_nodes([good, good])] == [HEALTHY]
    assert verdicts_of_nodes([good, unknown]) == ()
