"""Pages of one file without any script: they ask for nothing, and work in MLflow's artifact viewer."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from mlflow_sysmetrics.report.charts import Curves, draw
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.experiment import Experiment, visible
from mlflow_sysmetrics.report.interactive import drawn
from mlflow_sysmetrics.report.one_run import RunReport
from mlflow_sysmetrics.runtime.distribution import installed_version
from mlflow_sysmetrics.summary import amounts
from mlflow_sysmetrics.summary.rules import HEALTHY, WARM_UP_SECONDS, WARM_UP_SHARE

_MOST_ROWS = 1000  # of the table of an experiment: a page of 500 kB
_MILLISECONDS = 1000
_HOUR = 3600


def run_page(one: RunReport, *, interactive: bool = False) -> str:
    """Returns the page of one run.

    Args:
        one: the run.
        interactive: draw the curves with plotly, whose JavaScript is then part of the page.

    Raises:
        ModuleNotFoundError: plotly is needed and not installed.
    """
    seconds = max((node.whole.seconds for node in one.summary.nodes), default=0.0)
    evidence: dict[str, Sequence[str]] = {verdict.name: verdict.series for verdict in one.verdicts}
    curves = Curves("", _begin(one), one.histories, one.epochs)
    charts = draw([curves], evidence, max(WARM_UP_SECONDS, WARM_UP_SHARE * seconds))
    title = one.run.name or one.run.run_id
    figure = drawn([curves], evidence) if interactive else None
    return _render("run.html", title=f"Run {title}", one=one, charts=charts, figure=figure)


def runs_page(reports: Sequence[RunReport], *, interactive: bool = False) -> str:
    """Returns the page of several runs side by side, aligned by the time since their start.

    Args:
        reports: the runs.
        interactive: as in `run_page`.

    Raises:
        ModuleNotFoundError: plotly is needed and not installed.
    """
    names = _distinct([one.run.name or one.run.run_id for one in reports])
    curves = [Curves(name, _begin(one), one.histories) for name, one in zip(names, reports, strict=True)]
    rows = [
        (label, [amounts.amount(name, one.summary.figures.get(name)) for one in reports])
        for name, label in amounts.LABELS.items()
        if any(name in one.summary.figures for one in reports)
    ]
    return _render(
        "runs.html",
        title=f"{len(reports)} runs",
        reports=list(zip(names, reports, strict=True)),
        rows=rows,
        charts=draw(curves, {}, 0),
        figure=drawn(curves, {}) if interactive else None,
    )


def experiment_page(table: Experiment, costs: Costs) -> str:
    """Returns the page of an experiment."""
    verdicts = table.verdicts()
    sums = {
        "hours": table.total(lambda row: row.run.seconds / _HOUR),
        "gpu_hours": table.total(lambda row: row.figures.get("gpu_hours")),
        "idle": table.total(lambda row: row.idle_gpu_hours),
        "core_hours": table.total(lambda row: row.figures.get("cpu_core_hours")),
        "kwh": table.total(lambda row: costs.kwh(row.figures)),
        "carbon": table.total(lambda row: costs.carbon_grams(row.figures)),
        "cost": table.total(lambda row: costs.price(row.figures)),
    }
    return _render(
        "experiment.html",
        title=f"Experiment {table.name}",
        table=table,
        costs=costs,
        sums=sums,
        verdicts=[(name, count, 100 * count / len(table.rows)) for name, count in verdicts],
        shown=table.rows[:_MOST_ROWS],
        figure=None,
    )


def _begin(one: RunReport) -> int:
    """Returns the left edge of the curves: the start of the run, unless it was measured much later."""
    return min([one.run.started_at, *(points[0][0] for points in one.histories.values() if points)])


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns the names, with a number where several are the same."""
    return [
        f"{name} ({index})" if names.count(name) > 1 else name for index, name in enumerate(names, start=1)
    ]


def _render(name: str, **content: Any) -> str:
    """Returns a page; everything in it is escaped, and control characters are written out."""
    made = amounts.moment(int(time.time() * _MILLISECONDS))
    return _environment().get_template(name).render(made=made, **content)


@functools.cache
def _environment() -> Environment:
    """Returns what keeps the templates, which take longer to compile than to fill in."""
    environment = Environment(
        loader=_Templates(),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"amounts": amounts, "healthy": HEALTHY, "version": installed_version() or ""}
    return environment


def _shown(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


class _Templates(BaseLoader):
    """The templates of this package, also from an archive."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Any]:
        """Returns the text of a template."""
        del environment
        text = (files(__package__ or "") / "templates" / template).read_text(encoding="utf-8")
        return text, None, None
