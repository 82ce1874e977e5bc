"""How long `start_run` and `end_run` block a program that does one short run after another.

The built-in monitor sends the first point of every series one interval after the start of a run, and none at
its end. Ours sends a point at the end and, for levels and totals, one at the start; a share of CPU time has
no value at the first moment. So no run has exactly the same points on both sides, and ours is placed between
two configurations of the built-in monitor: one that delivers as many points of the CPU series and fewer of
the others, and one that delivers as many of the others and more of the CPU series. The counts of the server
are checked; rounds with other counts are excluded.

The built-in monitor sets no tags, so the compared side sets none either; what tags add to `start_run`, where
MLflow sends about twenty of them, is a separate column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

from counting_server import CountingServer, counting_server
from tables import Cell, Table, figure, ratio
from variants import BUILT_IN, OURS, Variant, fresh_worker

_MILLISECONDS = 1000
_BODY_SECONDS = 0.45
_MOST_LEFT_OUT = 0.1
_FEWEST_FIRST_RUNS = 5
_CPU = "system/cpu_utilization_percentage"


def _interval(seconds: float) -> dict[str, str]:
    return {
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": str(seconds),
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    }


# The interval fits into the body once, or twice, with room for a late tick. Ours uses its defaults.
_FEWER = Variant("built-in, 1 point", {**BUILT_IN.environ, **_interval(_BODY_SECONDS / 1.5)})
_MORE = Variant("built-in, 2 points", {**BUILT_IN.environ, **_interval(_BODY_SECONDS / 2.5)})
_METRICS = OURS.with_environ(MLFLOW_SYSMETRICS_TAGS="off")
_TAGGED = Variant("ours, tags too", OURS.environ)
_SIDES = (_FEWER, _METRICS, _MORE, _TAGGED)


def measure(runs: int) -> dict[str, Any]:
    """Returns start, end and points of every run by side; the sides alternate, run by run.

    Raises:
        AssertionError: in over a tenth of the rounds the points do not allow a fair comparison.
    """
    with counting_server() as server:
        first = _first_runs(server, max(_FEWEST_FIRST_RUNS, runs // 10))
        found = _later_runs(server, runs)
    fair = [
        number for number in range(runs) if _fair({name: of_side[number] for name, of_side in found.items()})
    ]
    if len(fair) < runs * (1 - _MOST_LEFT_OUT):
        last = {name: of_side[-1]["points"] for name, of_side in found.items()}
        raise AssertionError(
            f"points are comparable in only {len(fair)} of {runs} rounds; in the last one: {last}"
        )
    kept = {name: [of_side[number] for number in fair] for name, of_side in found.items()}
    return {"first": first, "runs": kept, "rounds_left_out": runs - len(fair)}


def _first_runs(server: CountingServer, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Does the first run of fresh interpreters, which includes imports, facts and connecting."""
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in _SIDES}
    for number in range(rounds):
        for side in _SIDES if number % 2 else reversed(_SIDES):
            with fresh_worker(side, server.url) as worker:
                found[side.name].append(worker.ask("one_run", body_seconds=_BODY_SECONDS))
    return found


def _later_runs(server: CountingServer, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Does consecutive runs in one interpreter per side, and leaves out the first."""
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in _SIDES}
    with ExitStack() as stack:
        workers = {side.name: stack.enter_context(fresh_worker(side, server.url)) for side in _SIDES}
        for number in range(rounds + 1):
            for name in workers if number % 2 else reversed(workers):
                found[name].append(workers[name].ask("one_run", body_seconds=_BODY_SECONDS))
    points = server.counts()["points"]
    for run in chain.from_iterable(found.values()):
        run["points"] = points[run["run_id"]]
    return {name: of_side[1:] for name, of_side in found.items()}


def _fair(round_: Mapping[str, Mapping[str, Any]]) -> bool:
    """Returns whether the server's counts of one round place ours between the two built-in sides."""
    fewer, ours, more, tagged = (round_[side.name]["points"] for side in _SIDES)
    if not fewer.keys() == more.keys() <= ours.keys() or any(tagged.get(key) != ours[key] for key in fewer):
        return False
    others = fewer.keys() - {_CPU}
    return (
        fewer[_CPU] == ours[_CPU] < more[_CPU]
        and all(fewer[key] < ours[key] for key in others)
        and all(ours[key] == more[key] for key in others)
    )


def table(found: Mapping[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    sides = [found["runs"][side.name] for side in _SIDES]
    rows = []
    for label, pick in _ROWS:
        cells = [Cell([pick(run) for run in of_side]) for of_side in sides]
        medians = [cell.median for cell in cells]
        rows.append((f"{label}, median", *(cell.show() for cell in cells), *_ratios(medians)))
        if label in _TIMES:
            late = [cell.p95 for cell in cells]
            rows.append((f"{label}, p95", *map(figure, late), *_ratios(late)))
    together = [[_together(run) for run in of_side] for of_side in sides]
    longer = [Cell([b - a for a, b in zip(of_side, together[1], strict=True)]) for of_side in together]
    rows.append(("ours minus that column, both in one round, ms", *(cell.show() for cell in longer), "", ""))
    first = [Cell([_together(run) for run in found["first"][side.name]]) for side in _SIDES]
    medians = [cell.median for cell in first]
    rows.append(
        ("first run of a process, both, ms, median", *(cell.show() for cell in first), *_ratios(medians))
    )
    builtin, ours = (len(of_side[-1]["points"]) for of_side in sides[:2])
    title = (
        f"Start and end of {len(sides[0])} runs of {_BODY_SECONDS:g} s one after another, "
        f"the built-in's with {builtin} series and ours with {ours}; "
        f"{found['rounds_left_out']} rounds left out for their points"
    )
    heads = ("", *(side.name for side in _SIDES), "1 point / ours", "2 points / ours")
    return Table(title, heads, rows)


def _ratios(values: Sequence[float]) -> tuple[str, str]:
    fewer, ours, more, _ = values
    return ratio(fewer, ours), ratio(more, ours)


def _together(run: Mapping[str, Any]) -> float:
    return float(run["start_seconds"] + run["end_seconds"]) * _MILLISECONDS


_TIMES: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "start_run, ms": lambda run: run["start_seconds"] * _MILLISECONDS,
    "end_run, ms": lambda run: run["end_seconds"] * _MILLISECONDS,
    "start_run + end_run, ms": _together,
}
_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], float]], ...] = (
    *_TIMES.items(),
    ("points of the CPU series", lambda run: run["points"][_CPU]),
    ("points of all series", lambda run: sum(run["points"].values())),
)
