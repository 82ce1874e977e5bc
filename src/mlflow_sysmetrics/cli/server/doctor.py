"""`mlflow-sysmetrics server doctor`: what a tracking server would stumble over, before it does."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence

import click

from mlflow_sysmetrics.cli.findings import Finding, Mark, Section, print_section, say, wrapped
from mlflow_sysmetrics.cli.options import json_option
from mlflow_sysmetrics.cli.server import access, database, storage
from mlflow_sysmetrics.cli.server.options import WORKERS, AskedServer
from mlflow_sysmetrics.cli.table import counted, print_json
from mlflow_sysmetrics.mlflow_api import fluent_state

_JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


@click.command()
@click.option(
    "--backend-store-uri", metavar="URI", envvar="MLFLOW_BACKEND_STORE_URI", help="Database of the server."
)
@click.option(
    "--artifacts-destination",
    metavar="PATH",
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    help="Directory or URI of its artifacts.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    envvar="MLFLOW_WORKERS",
    default=WORKERS,
    show_default=True,
    help="Processes that answer.",
)
@click.option(
    "--allowed-hosts",
    metavar="NAMES",
    envvar="MLFLOW_SERVER_ALLOWED_HOSTS",
    default="",
    help="Names that it may be called by, with commas between them.",
)
@click.option(
    "--public-name",
    "public_names",
    metavar="HOST[:PORT]",
    multiple=True,
    help="Name by which its users call it; may be given several times.",
)
@click.option("--basic-auth", is_flag=True, help="It asks for users and passwords.")
@json_option
def doctor(
    *,
    backend_store_uri: str | None,
    artifacts_destination: str | None,
    workers: int,
    allowed_hosts: str,
    public_names: tuple[str, ...],
    basic_auth: bool,
    as_json: bool,
) -> None:
    """Look what a tracking server would stumble over, and change nothing.

    Run it where the server runs, with its environment: what is not said here is taken from MLflow's
    variables. Looks at the database and its driver, at artifacts and disk space, at the names by which it is
    called and at authentication. The exit status is 0 unless something is wrong.
    """
    for name in public_names:
        if "/" in name or not name.strip():
            raise click.BadParameter(
                f"{name!r} is no host name; write mlflow:5000", param_hint="--public-name"
            )
    asked = AskedServer(
        backend_store_uri=backend_store_uri,
        artifacts_destination=artifacts_destination,
        workers=workers,
        allowed_hosts=tuple(one.strip() for one in allowed_hosts.split(",") if one.strip()),
        public_names=public_names,
        basic_auth=basic_auth,
        environ=dict(os.environ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow and the database's driver: nothing that this is about
        sections = [
            Section("mlflow", "MLflow", list(_mlflow())),
            Section("database", "Database", list(database.findings(asked))),
            Section("storage", "Artifacts and disks", list(storage.findings(asked))),
            Section("access", "Access", list(access.findings(asked))),
        ]
    wrong = [one for section in sections for one in section.findings if one.mark is Mark.WRONG]
    if as_json:
        print_json(_document(sections, wrong))
    else:
        _print(sections, wrong)
    if wrong:
        raise SystemExit(1)


def _mlflow() -> Iterator[Finding]:
    version = fluent_state.version()
    yield Finding("version", Mark.GOOD, version, None, {"version": version})
    if fluent_state.server_runs_jobs():
        text = "on: eight more processes and 0.6 GB or more, which only MLflow's evaluation of traces uses"
        yield Finding("job execution", Mark.NOTE, text, f"export {_JOBS}=false")


def _print(sections: Sequence[Section], wrong: Sequence[Finding]) -> None:
    for section in sections:
        print_section(section)
        say("")
    if not wrong:
        say("Nothing is wrong.")
        return
    names = ", ".join(one.name for one in wrong)
    say(wrapped("", f"{counted(len(wrong), 'thing')} {'is' if len(wrong) == 1 else 'are'} wrong: {names}."))


def _document(sections: Sequence[Section], wrong: Sequence[Finding]) -> object:
    remedies = [one.remedy for one in wrong if one.remedy is not None]
    found = {one.key: [finding.document() for finding in one.findings] for one in sections}
    return {"schema": 1, "ok": not wrong, "next": remedies, **found}
