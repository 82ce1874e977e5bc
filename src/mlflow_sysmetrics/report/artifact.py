"""The report of a run among its artifacts: `MLFLOW_SYSMETRICS_REPORT=artifact`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.measured_runs import read_run
from mlflow_sysmetrics.report.one_run import report_on
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded
from mlflow_sysmetrics.runtime.threads import greenlets_may_wait

ARTIFACT = "sysmetrics/report.html"
THREAD_NAME = "sysmetrics-report"

_logger = Log()


class ClientServer:
    """A tracking server of this program, read through MLflow's client.

    Args:
        uri: its tracking URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = self.ask(open_client, uri)

    def ask(self, method: Any, *arguments: object, **named: object) -> Any:
        """Returns what a method returns; raises `Fault` if the server does not answer."""
        try:
            with greenlets_may_wait():
                return method(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - MLflow, its database, the network or a plugin may raise anything
            fault = fault_of_error(error, self.uri)
        raise fault

    def pages(self, search: Any, **wanted: object) -> Iterator[Any]:
        """Yields what the first page of a search has; a report on one run searches for nothing."""
        yield from self.ask(search, **wanted)


def add_report(run_id: str, tracking_uri: str, seconds: float) -> bool:
    """Adds the report to the artifacts of a run; returns whether it is there.

    Args:
        run_id: the run, whose points are on the server.
        tracking_uri: its tracking server.
        seconds: longest wait. What takes longer goes on in the background while the process lives.
    """
    try:
        return bounded(partial(_add, run_id, tracking_uri), seconds, name=THREAD_NAME)
    except CallTimeout:
        _logger.info("mlflow-sysmetrics: The report of run %s takes longer than %g s.", run_id, seconds)
    except ThreadUnavailable:
        pass  # the interpreter is shutting down
    except ImportError as error:
        _logger.warning("mlflow-sysmetrics: No report: %s is not installed: pip install mlflow", error.name)
    except Exception as error:  # noqa: BLE001 - of an artifact store; the program must not fail because of a page
        fault = fault_of_error(error, tracking_uri)
        _logger.warning("mlflow-sysmetrics: Run %s has no report: %s.", run_id, fault)
    return False


def _add(run_id: str, tracking_uri: str) -> bool:
    from mlflow_sysmetrics.report.page import run_page  # needs Jinja2, which mlflow-skinny does not bring

    server = ClientServer(tracking_uri)
    run = read_run(server, run_id)
    if run is None or not run.series:
        return False
    page = run_page(report_on(server, run, Costs.from_environ()))
    with greenlets_may_wait():
        server.client.log_text(run_id, page, ARTIFACT)
    return True
