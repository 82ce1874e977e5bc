"""`mlflow-sysmetrics doctor`: what works here, what does not, and what to do next."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import click

from mlflow_sysmetrics.cli import effective_settings, installed, this_machine, tracking_server, waiting_points
from mlflow_sysmetrics.cli.findings import Finding, Mark, Section, print_section, say, sign, wrapped
from mlflow_sysmetrics.cli.options import json_option
from mlflow_sysmetrics.cli.output import counted, print_json
from mlflow_sysmetrics.mlflow_api.secrets import cleaned

_LONGEST_NEXT = 60  # characters of a remedy that fits into the last line


@click.command(short_help="Show what works on this machine and what does not.")
@json_option
def doctor(*, as_json: bool) -> None:
    """Show what is installed and active, what is collected here, and what is wrong.

    Inspects the installation, this machine, the settings, the tracking server and the journals, and changes
    nothing. A line marked "-" is absent or switched off, which is not a fault. Exits with 1 if anything is
    wrong, else 0.
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
    wrong = [one for section in sections for one in section.findings if one.mark is Mark.WRONG]
    notes = [one for section in sections for one in section.findings if one.mark is Mark.NOTE]
    if as_json:
        print_json(_document(sections, wrong, notes))
    else:
        _print_summary(wrong, notes)
    if wrong:
        raise SystemExit(1)


def _guarded(title: str, inspect: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """Returns the findings of a section; if the inspection itself fails, a finding that says so."""
    try:
        return inspect()
    except Exception as error:  # a broken installation may raise anything
        text = cleaned(f"cannot be inspected: {type(error).__name__}: {error}")
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        remedy = f"pip install {missing}" if missing else "report it, unless a finding above explains it"
        return [Finding(title.lower(), Mark.WRONG, text, remedy)]


def _print_summary(wrong: Sequence[Finding], notes: Sequence[Finding]) -> None:
    """Prints the result in one line, and in the next line what to do first."""
    if wrong:
        names = ", ".join(one.name for one in wrong)
        verb = "is" if len(wrong) == 1 else "are"
        say(wrapped("", f"{counted(len(wrong), 'thing')} {verb} wrong: {names}."))
    elif any(one.remedy is not None for one in notes):
        say(f"Nothing is broken; see the {counted(len(notes), 'line')} marked {sign(Mark.NOTE)}.")
    else:
        say("Nothing is wrong.")
    first = next((one for one in (*wrong, *notes) if one.remedy is not None), None)
    if first is None or first.remedy is None:
        say("Next: " + ("see above." if wrong else "mlflow-sysmetrics check, before you submit a job."))
    elif len(first.remedy) > _LONGEST_NEXT:
        say(f"Next: see {first.name}, above.")
    else:
        say(f"Next: {first.remedy} ({first.name})")


def _document(found: Sequence[Section], wrong: Sequence[Finding], notes: Sequence[Finding]) -> object:
    remedies = [one.remedy for one in (*wrong, *notes) if one.remedy is not None]
    sections = {one.key: [finding.document() for finding in one.findings] for one in found}
    return {"schema": 1, "ok": not wrong, "next": remedies, **sections}
