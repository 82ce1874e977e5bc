"""Draws a board as lines of text: each exactly as wide as the terminal, as many as it is high."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.live.cells import Row, Span, fitted, inert, row, wrapped
from mlflow_sysmetrics.live.curves import columns, drawn
from mlflow_sysmetrics.live.view import SPANS, Shown, View, shown_series
from mlflow_sysmetrics.summary.amounts import duration, number
from mlflow_sysmetrics.summary.rules import HEALTHY

_LABEL, _LABEL_SHARE = 28, 3  # cells of a name, and at most so much of the line
_VALUE = 10
_VERDICT_LINES = 3
_STALE_SECONDS = 150.0  # no series is silent for longer than a minute
_RUNNING = frozenset({"RUNNING", "alive"})
_SUFFIXES = (
    *("_megabytes_per_second", "_percentage", "_megabytes", "_watt_hours", "_watts", "_celsius"),
    "_megahertz",
)
_THOUSANDS = {"MB": "GB", "MB/s": "GB/s", "Wh": "kWh"}
_THOUSAND = 1000.0
_SHORT = {"deg C": "C", **dict.fromkeys(("threads", "files", "processes", "errors", "kills", "rows"), "")}
_SHORTEST_SECONDS = 60.0  # of time that a curve shows
_KEYS = (
    ("q, Ctrl-C", "leave"),
    ("f, F", "next or previous family: main, gpu, cpu, memory, ..., all"),
    ("n, N, Tab", "next or previous node, all nodes"),
    ("+, -", "a shorter or longer span of time"),
    ("up, down, Space", "scroll, or choose a run"),
    ("Enter", "open a run"),
    ("b, Escape", "back to the list of runs"),
    ("?", "these keys"),
)


def draw(
    board: Board, view: View, size: tuple[int, int], now: float, *, ascii_only: bool = False
) -> list[Row]:
    """Returns the lines of the screen.

    Args:
        board: what is known; the caller holds its lock.
        view: what of it is shown.
        size: width and height in cells.
        now: seconds since 1970.
        ascii_only: uses ASCII only for curves.
    """
    width, height = max(size[0], 20), max(size[1], 5)
    run = board.runs.get(board.chosen or "")
    if view.help:
        head, body = [row([Span("mlflow-sysmetrics watch", "head")], width)], _keys(width)
    elif run is not None:
        head, body = _head(run, width, now), _curves(run, view, width, now, ascii_only=ascii_only)
    else:
        head, body = [row([Span(inert(board.title), "head")], width)], _list(board, view, width, now)
    if board.trouble:
        away = f"{board.trouble}; trying again for {duration(max(now - board.trouble_since, 0))}"
        head.extend(row([Span(line, "bad")], width) for line in wrapped(inert(away), width, 2))
    foot = row([Span(_foot(board, view, run), "dim")], width)
    room = height - len(head) - 1
    view.offset = (
        min(view.offset, max(len(body) - room, 0)) if run is not None or view.help else _first(view, room)
    )
    body = body[view.offset : view.offset + room]
    blank = [row([], width)] * (room - len(body))
    return [*head[: height - 1], *body[: max(room, 0)], *blank, foot][:height]


def _first(view: View, room: int) -> int:
    """Returns the first line of the list that is shown, so that the chosen one is visible."""
    line = view.cursor + 2
    return max(line - room, 0)


def _head(run: WatchedRun, width: int, now: float) -> list[Row]:
    name = inert(run.name or run.run_id)
    begin = run.started_at
    end = now if run.ended_at is None else run.ended_at / 1000
    facts = [inert(run.status), *([duration(max(end - begin / 1000, 0))] if begin else []), inert(run.owner)]
    if run.last_at is not None and run.ended_at is None and now - run.last_at / 1000 > _STALE_SECONDS:
        facts.append(f"no point for {duration(now - run.last_at / 1000)}")
    rows = [row([Span(name, "head"), "  ", ", ".join(filter(None, facts))], width)]
    verdict, text = (inert(part) for part in run.verdict)
    if verdict or text:
        style = "good" if verdict == HEALTHY else "bad"
        said = f"{verdict}: {text}" if verdict and text else verdict or text
        rows.extend(row([Span(line, style)], width) for line in wrapped(said, width, _VERDICT_LINES))
    else:
        rows.append(row([Span("no verdict: the rules have found nothing, or not enough yet", "dim")], width))
    return rows


def _curves(run: WatchedRun, view: View, width: int, now: float, *, ascii_only: bool) -> list[Row]:
    shown = shown_series(run, view)
    if not shown:
        return [row([Span(_why_empty(run, view), "dim")], width)]
    last = (run.last_at or 0) / 1000
    end = now if run.ended_at is None and now - last < _STALE_SECONDS else last
    rows: list[Row] = []
    for (node, family, device), together in groupby(shown, key=attrgetter("node", "family", "device")):
        rows.append(row([Span(_heading(node, family, device, run), "head")], width))
        rows.extend(_curve(run, one, view, width, end, ascii_only=ascii_only) for one in together)
    return rows


def _why_empty(run: WatchedRun, view: View) -> str:
    if not run.series:
        return "no system metrics yet; mlflow-sysmetrics doctor in the job's environment says why"
    return f"no series of {inert(view.family)} here; f shows the next family, n the next node"


def _heading(node: str, family: str, device: str, run: WatchedRun) -> str:
    what = f"GPU {device}" if family.startswith("gpu") else family.replace("_", " ")
    if family == "gpu_profile":
        what += " profile"
    elif device and not family.startswith("gpu"):
        what += f" {device}"
    if len(run.nodes) > 1 or node:
        return inert(f"{node or 'this node'}  {what}")
    return inert(what)


def _curve(run: WatchedRun, one: Shown, view: View, width: int, end: float, *, ascii_only: bool) -> Row:
    points = run.series[one.key].points
    label_cells = min(_LABEL, width // _LABEL_SHARE)
    cells = max(width - label_cells - 2 * _VALUE - 3, 5)
    values = columns(points, _begin(run, view, end), end * 1000, cells)
    unit = "" if one.metric is None else one.metric.unit
    newest = points[-1][1] if points else 0.0
    highest = max([newest, *(value for value in values if value is not None)])
    scale, unit = _scale(highest, unit)
    return row(
        [
            " ",
            fitted(inert(label(one)), label_cells - 1),
            " ",
            Span(drawn(values, percent=unit == "%", ascii_only=ascii_only), "curve"),
            Span(fitted(f"{number(newest / scale)} {unit}".rstrip(), _VALUE, right=True)),
            Span(fitted(f"max {number(highest / scale)}", _VALUE + 1, right=True), "dim"),
        ],
        width,
    )


def label(one: Shown) -> str:
    """Returns the name of a series without its device and its unit."""
    name = one.name.removeprefix("gpu_{i}_").replace("disk_{name}_", "")
    for suffix in _SUFFIXES:
        if one.metric is not None and name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return name.replace("_", " ")


def _begin(run: WatchedRun, view: View, end: float) -> float:
    """Returns when curves begin, in milliseconds since 1970: with the run if that is young."""
    earliest = (end - 60 * SPANS[view.span][0]) * 1000
    first = run.started_at or min((one.points[0][0] for one in run.series.values() if one.points), default=0)
    return min(max(earliest, float(first)), (end - _SHORTEST_SECONDS) * 1000)


def _scale(highest: float, unit: str) -> tuple[float, str]:
    """Returns what values are divided by, and the unit then; counts need none."""
    if highest >= _THOUSAND and unit in _THOUSANDS:
        return _THOUSAND, _THOUSANDS[unit]
    return 1.0, _SHORT.get(unit, unit)


def _list(board: Board, view: View, width: int, now: float) -> list[Row]:
    if not board.runs:
        return [row([Span("no runs yet", "dim")], width)]
    name_cells = max((width - 38) // 2, 12)
    heads = ["  ", fitted("RUN", name_cells), fitted("STATUS", 9), fitted("FOR", 10)]
    heads += [fitted(one, 6, right=True) for one in ("CPU", "GPU", "MEM")]
    heads.append("  VERDICT")
    rows: list[Row] = [row([Span("".join(heads), "dim")], width)]
    for index, run in enumerate(board.runs.values()):
        begin = None if run.started_at is None else run.started_at / 1000
        end = now if run.ended_at is None else run.ended_at / 1000
        cells = [
            "> " if index == view.cursor else "  ",
            fitted(inert(run.name or run.run_id), name_cells - 1) + " ",
            fitted(inert(run.status), 8) + " ",
            fitted("" if begin is None else duration(max(end - begin, 0)), 10),
            *(fitted(_share(run.mean_of(name)), 6, right=True) for name in _LISTED),
            "  " + inert(run.verdict[0] or run.verdict[1] or run.owner),
        ]
        style = "chosen" if index == view.cursor else "" if run.status in _RUNNING else "dim"
        rows.append(row([Span("".join(cells), style)], width))
    return rows


_LISTED = ("cpu_utilization_percentage", "gpu_{i}_utilization_percentage", "system_memory_usage_percentage")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _keys(width: int) -> list[Row]:
    return [row([Span(fitted(f"  {key}", 20), "head"), text], width) for key, text in _KEYS]


def _foot(board: Board, view: View, run: WatchedRun | None) -> str:
    if view.help:
        return "? back   q leave"
    if run is None:
        return "Enter open   up/down choose   ? keys   q leave"
    node = "all" if view.node is None else inert(view.node)
    nodes = f"   n node: {node}" if len(run.nodes) > 1 else ""
    back = "   b runs" if len(board.runs) > 1 else ""
    return f"f family: {inert(view.family)}{nodes}   +/- {SPANS[view.span][1]}{back}   ? keys   q leave"


def plain(rows: Iterable[Row]) -> str:
    """Returns lines as text without styles, and without blank lines at the end."""
    return "\n".join("".join(span.text for span in one).rstrip() for one in rows).rstrip("\n")
