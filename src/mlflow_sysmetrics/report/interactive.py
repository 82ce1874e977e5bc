"""The curves as plotly draws them: to zoom into, to read values from, to switch on and off.

plotly's JavaScript comes from the installed package and becomes part of the page, which asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.report.charts import PANELS, Curves, is_about, label, longest_step, matching
from mlflow_sysmetrics.report.experiment import visible
from mlflow_sysmetrics.report.histories import thinned
from mlflow_sysmetrics.report.measured_runs import Point

if TYPE_CHECKING:
    from markupsafe import Markup

_BUCKETS = 1500  # of a curve: twice the columns of a plot, so that there is something to zoom into
_MOST_POINTS = 40_000  # of a page, some twelve bytes each
_FEWEST_BUCKETS = 100
_PANEL, _MARGIN = 170, 60  # pixels
_MINUTES = 60_000  # milliseconds
# Only these: others of plotly send the data of a figure to a service.
_BUTTONS = ("zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage")
_GAP = 0.3  # between two panels, as a share of one
# Both are readable on a light and on a dark page.
_INK, _GRID = "#808890", "rgba(128, 136, 144, 0.25)"
_COLORS = ("#2f81d8", "#d9772b", "#2f9e53", "#9a6ee0", "#d0488e", "#808890")


def drawn(runs: Sequence[Curves], evidence: Mapping[str, Sequence[str]]) -> Markup:
    """Returns the panels as one element of a page, with the JavaScript that draws them.

    Args:
        runs: their series.
        evidence: verdict -> regular expressions of the series that it is about.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    from markupsafe import Markup
    from plotly.graph_objects import Figure, Scatter
    from plotly.subplots import make_subplots

    found = _panels(runs, evidence)
    count = sum(len(run.histories) for run in runs)
    buckets = min(max(_MOST_POINTS // (2 * max(count, 1)), _FEWEST_BUCKETS), _BUCKETS)
    rows = max(len(found), 1)
    figure: Figure = make_subplots(
        rows=rows,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=_GAP / rows,
        subplot_titles=[head for head, _ in found],
    )
    for row, (_, series) in enumerate(found, start=1):
        for index, (number, key) in enumerate(series):
            run = runs[number]
            name = _text(" ".join(filter(None, (run.name, label(key)))))
            color = _COLORS[(index if len(runs) == 1 else number) % len(_COLORS)]
            x, y = _coordinates(run.histories[key], run.began, buckets)
            line = Scatter(x=x, y=y, name=name, mode="lines", line={"color": color, "width": 1.3})
            figure.add_trace(line, row=row, col=1)
    _style(figure, rows)
    options = {"displaylogo": False, "responsive": True, "modeBarButtons": [list(_BUTTONS)]}
    # What a user names is escaped twice: here for plotly, whose labels are markup, by plotly for the page.
    return Markup(figure.to_html(full_html=False, include_plotlyjs=True, config=options))  # noqa: S704


def _style(figure: Any, rows: int) -> None:
    """Sets sizes and colours, which are readable on a light and on a dark page."""
    figure.update_layout(
        height=_PANEL * rows + 2 * _MARGIN,
        margin={"l": 50, "r": 10, "t": 30, "b": _MARGIN},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _INK},
        hovermode="x",
        showlegend=False,
    )
    figure.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID)
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor=_GRID, rangemode="tozero")
    figure.update_xaxes(title_text="minutes since the start", row=rows, col=1)


def _panels(
    runs: Sequence[Curves], evidence: Mapping[str, Sequence[str]]
) -> list[tuple[str, list[tuple[int, str]]]]:
    """Returns the title of each panel, and its series: the number of the run, and the key."""
    found = []
    for title, unit, names in PANELS:
        series = [(number, key) for number, run in enumerate(runs) for key in matching(run.histories, names)]
        if any(value for number, key in series for _, value in runs[number].histories[key]):
            about = [one for one, keys in evidence.items() if is_about(keys, [key for _, key in series])]
            head = f"{title} ({unit})" if unit else title
            found.append((f"{head}, evidence for {', '.join(about)}" if about else head, series))
    return found


def _coordinates(points: Sequence[Point], began: int, buckets: int) -> tuple[list[float], list[float | None]]:
    """Returns minutes and values of a curve, with None where nothing was measured."""
    first, last = points[0][0], points[-1][0]
    gap = longest_step(points, last - first, buckets)
    x: list[float] = []
    y: list[float | None] = []
    before = first
    for at, value in thinned(points, first, last, buckets):
        if at - before > gap:
            x.append(round((at - began) / _MINUTES, 2))
            y.append(None)
        x.append(round((at - began) / _MINUTES, 2))
        y.append(round(value, 3))
        before = at
    return x, y


def _text(name: str) -> str:
    """Returns a name that plotly, in whose labels there may be markup, shows as it is."""
    return escape(visible(name), quote=False)
