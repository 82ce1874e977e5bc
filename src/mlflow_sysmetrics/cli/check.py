"""`mlflow-sysmetrics check`: creates a run on the tracking server and reads it back."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

import click

from mlflow_sysmetrics.cli.findings import Finding, Mark, print_finding
from mlflow_sysmetrics.cli.options import DURATION_FORMAT, Name, duration, json_option, tracking_uri_option
from mlflow_sysmetrics.cli.output import print_json, say, say_wrapped
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.verification import STEPS, Step, Verification

_WIDTH = max(map(len, STEPS)) + len("1. ")
_MILLISECONDS = 1000


@click.command(
    cls=Command,
    short_help="Check that the tracking server accepts a run.",
    exits={0: "all four steps passed", FAILED: "a step failed"},
)
@tracking_uri_option("Tracking server, with user and password if it needs them.")
@click.option(
    "--experiment",
    metavar="NAME",
    type=Name("the name of an experiment"),
    help="Experiment of the job; created if it does not exist.  [default: a new one]",
)
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=duration,
    default="30s",
    show_default=True,
    help=f"Longest wait for each answer: {DURATION_FORMAT}.",
)
@click.option("--keep", is_flag=True, help="Keep the run, and the experiment if it was created.")
@json_option
def check(
    *, tracking_uri: str | None, experiment: str | None, timeout: float, keep: bool, as_json: bool
) -> None:
    """Check that the tracking server accepts a run, before a job is submitted.

    Contacts the server, finds or creates the experiment, creates a run with a metric and ends it, and reads
    the metric back. Everything created is removed again, also after a failure.
    """
    uri = tracking_uri or tracking_uri_in_force()
    if not uri:
        raise click.UsageError("no tracking server: pass --tracking-uri or set MLFLOW_TRACKING_URI")
    verification = Verification(uri, experiment, timeout=timeout)
    if not as_json:
        say_wrapped(f"Checking {redacted(uri)} with MLflow {fluent_state.version()}")
        say("")
    steps: list[Step] = []
    left: Sequence[str] = ()
    try:
        for step in _quiet(verification.steps()):
            steps.append(step)
            if not as_json:
                print_finding(_finding(step), _WIDTH)
    finally:
        if not keep:
            with redirect_stdout(sys.stderr):
                left = verification.clean_up()
        if not as_json:
            _print_rest(verification, len(steps), left, keep=keep)
    passed = len(steps) == len(STEPS) and steps[-1].passed
    if as_json:
        print_json(_document(verification, uri, steps, left, keep=keep))
    else:
        _print_summary(steps, passed=passed)
    if not passed:
        raise SystemExit(FAILED)


def _quiet(steps: Iterator[Step]) -> Iterator[Step]:
    """Yields the steps; sends what MLflow prints meanwhile ("View run ...") to the standard error."""
    while True:
        with redirect_stdout(sys.stderr):
            step = next(steps, None)
        if step is None:
            return
        yield step


def _finding(step: Step) -> Finding:
    name = f"{step.number}. {step.name}"
    text = f"{step.seconds * _MILLISECONDS:,.0f} ms, {step.text}"
    return Finding(name, Mark.GOOD if step.passed else Mark.WRONG, text, step.remedy)


def _print_rest(verification: Verification, taken: int, left: Sequence[str], *, keep: bool) -> None:
    """Prints the steps that were not taken, and what remains on the server."""
    for number, name in enumerate(STEPS[taken:], start=taken + 1):
        print_finding(Finding(f"{number}. {name}", Mark.ABSENT, "not tried"), _WIDTH)
    for one in left:
        print_finding(Finding("Left behind", Mark.NOTE, one), _WIDTH)
    if keep and verification.created.run_id is not None:
        text = f"run {verification.created.run_id} in {verification.created.experiment}"
        print_finding(Finding("Kept", Mark.PLAIN, text), _WIDTH)


def _print_summary(steps: Sequence[Step], *, passed: bool) -> None:
    if passed:
        seconds = sum(step.seconds for step in steps)
        say(f"\nAll {len(STEPS)} steps passed in {seconds:.1f} s: runs can be tracked.")
    else:
        say(f"\nStep {len(steps)} failed: a job submitted now would not be tracked.")


def _document(
    verification: Verification, uri: str, steps: Sequence[Step], left: Sequence[str], *, keep: bool
) -> object:
    return {
        "schema": 1,
        "ok": len(steps) == len(STEPS) and steps[-1].passed,
        "tracking_uri": redacted(uri),
        "client_version": fluent_state.version(),
        "server_version": verification.server_version,
        "experiment_name": verification.created.experiment,
        "experiment_id": verification.created.experiment_id,
        "run_id": verification.created.run_id,
        "kept": keep,
        "left_behind": list(left),
        "steps": [_step(step) for step in steps],
    }


def _step(step: Step) -> dict[str, object]:
    return {
        "number": step.number,
        "name": step.name,
        "ok": step.passed,
        "seconds": round(step.seconds, 4),
        "text": step.text,
        "status_code": step.status_code,
        "remedy": step.remedy,
    }
