"""`mlflow-sysmetrics server doctor`: finds problems of a tracking server before it starts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence

import click

from mlflow_sysmetrics.cli.findings import (
    Finding,
    Mark,
    Section,
    is_wrong,
    print_section,
    print_summary,
    remedies,
)
from mlflow_sysmetrics.cli.options import Name, Whole, json_option
from mlflow_sysmetrics.cli.output import print_json, say
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.cli.server.inspection import (
    DEFAULT_WORKERS,
    InspectedServer,
    access_findings,
    database_findings,
    storage_findings,
)
from mlflow_sysmetrics.mlflow_api import fluent_state

_JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


@click.command(
    cls=Command,
    short_help="Find problems of a tracking server.",
    exits={0: "nothing is wrong", FAILED: "something is wrong; the line marked so says what"},
)
@click.option(
    "--backend-store-uri",
    metavar="URI",
    type=Name("the URI of a database"),
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Database of the server.",
)
@click.option(
    "--artifacts-destination",
    metavar="PATH",
    type=Name("a directory or the URI of an object store"),
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    help="Directory or URI of its artifacts.",
)
@click.option(
    "--workers",
    metavar="N",
    type=Whole(1),
    envvar="MLFLOW_WORKERS",
    default=DEFAULT_WORKERS,
    show_default=True,
    help="Number of worker processes.",
)
@click.option(
    "--allowed-hosts",
    metavar="NAMES",
    type=Name("host names, separated by commas"),
    envvar="MLFLOW_SERVER_ALLOWED_HOSTS",
    help="Host names it answers to, separated by commas.",
)
@click.option(
    "--public-name",
    "public_names",
    metavar="HOST[:PORT]",
    multiple=True,
    help="Host name its users call; repeatable.",
)
@click.option("--basic-auth", is_flag=True, help="The server asks for users and passwords.")
@json_option
def doctor(
    *,
    backend_store_uri: str | None,
    artifacts_destination: str | None,
    workers: int,
    allowed_hosts: str | None,
    public_names: tuple[str, ...],
    basic_auth: bool,
    as_json: bool,
) -> None:
    """Find problems of a tracking server before it starts, and change nothing.

    Run it where the server runs, with the server's environment: options not given here are read from MLflow's
    variables. Inspects the database and its driver, artifacts and disk space, host names, and authentication.
    """
    for name in public_names:
        if "/" in name or not name.strip():
            raise click.BadParameter(
                f"must be a host name such as mlflow:5000, got {name!r}", param_hint="--public-name"
            )
    inspected = InspectedServer(
        backend_store_uri=backend_store_uri,
        artifacts_destination=artifacts_destination,
        workers=workers,
        allowed_hosts=tuple(one.strip() for one in (allowed_hosts or "").split(",") if one.strip()),
        public_names=public_names,
        basic_auth=basic_auth,
        environ=dict(os.environ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of MLflow and the database driver are not findings
        sections = [
            Section("mlflow", "MLflow", list(_mlflow())),
            Section("database", "Database", list(database_findings(inspected))),
            Section("storage", "Artifacts and disks", list(storage_findings(inspected))),
            Section("access", "Access", list(access_findings(inspected))),
        ]
    if as_json:
        print_json(_document(sections))
    else:
        for section in sections:
            print_section(section)
            say("")
        print_summary(sections)
    if is_wrong(sections):
        raise SystemExit(FAILED)


def _mlflow() -> Iterator[Finding]:
    version = fluent_state.version()
    yield Finding("version", Mark.GOOD, version, None, {"version": version})
    if fluent_state.server_runs_jobs():
        text = "on: eight more processes and at least 0.6 GB, used only by MLflow's evaluation of traces"
        yield Finding("job execution", Mark.NOTE, text, f"export {_JOBS}=false")


def _document(sections: Sequence[Section]) -> object:
    documents = {one.key: [finding.document() for finding in one.findings] for one in sections}
    return {"schema": 1, "ok": not is_wrong(sections), "next": remedies(sections), **documents}
