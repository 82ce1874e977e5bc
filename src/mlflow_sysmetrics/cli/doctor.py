"""`mlflow-sysmetrics doctor`: what works here, what does not, and what to do next."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import click

from mlflow_sysmetrics.cli import effective_settings, installed, this_machine, tracking_server, waiting_points
from mlflow_sysmetrics.cli.findings import (
    Finding,
    Mark,
    Section,
    is_wrong,
    print_section,
    print_summary,
    remedies,
)
from mlflow_sysmetrics.cli.options import json_option
from mlflow_sysmetrics.cli.output import print_json, say
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.mlflow_api.secrets import cleaned


@click.command(
    cls=Command,
    short_help="Show what works on this machine and what does not.",
    exits={0: "nothing is wrong", FAILED: "something is wrong; the line marked so says what"},
)
@json_option
def doctor(*, as_json: bool) -> None:
    """Show what is installed and active, what is collected here, and what is wrong.

    Inspects the installation, this machine, the settings, the tracking server and the journals, and changes
    nothing. A line marked "-" is absent or switched off, which is not a fault.
    """
    sections: list[Section] = []
    # Read first: an invalid variable is reported once per process, and importing MLflow reads them too.
    settings, complaints = effective_settings.read(os.environ)
    with warnings.catch_warnings():
        # Warnings of MLflow and of the libraries it imports say nothing about this installation.
        warnings.simplefilter("ignore")
        for key, title, look in (
            ("installed", "Installed and active", lambda: installed.findings(settings)),
            ("collected", "Collected on this machine", lambda: this_machine.findings(settings)),
            (
                "settings",
                "Settings",
                lambda: effective_settings.findings(settings, os.environ, complaints),
            ),
            ("tracking_server", "Tracking server", lambda: tracking_server.findings(os.environ)),
            ("journals", "Journals", lambda: waiting_points.findings(settings)),
        ):
            sections.append(Section(key, title, _guarded(title, look)))
            if not as_json:
                print_section(sections[-1])
                say("")
    if as_json:
        print_json(_document(sections))
    else:
        print_summary(sections, "mlflow-sysmetrics check, before you submit a job.")
    if is_wrong(sections):
        raise SystemExit(FAILED)


def _guarded(title: str, inspect: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """Returns the findings of a section; if the inspection itself fails, a finding that says so."""
    try:
        return inspect()
    except Exception as error:  # a broken installation may raise anything
        text = cleaned(f"cannot be inspected: {type(error).__name__}: {error}")
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        remedy = f"pip install {missing}" if missing else "report it, unless a finding above explains it"
        return [Finding(title.lower(), Mark.WRONG, text, remedy)]


def _document(found: Sequence[Section]) -> object:
    sections = {one.key: [finding.document() for finding in one.findings] for one in found}
    return {"schema": 1, "ok": not is_wrong(found), "next": remedies(found), **sections}
