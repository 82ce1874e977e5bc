"""`mlflow-sysmetrics server run`: a tracking server in the foreground, without Docker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from mlflow_sysmetrics.cli.findings import say
from mlflow_sysmetrics.cli.options import FORMAT, duration
from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.launch import log_tail
from mlflow_sysmetrics.server.local_server import LocalServer

_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"  # noqa: S105 - the name of MLflow's variable for it
_LOOK_SECONDS = 1.0


@click.command()
@click.option(
    "--backend-store-uri",
    metavar="URI",
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Database, as sqlite:////PATH.db or postgresql://USER:PASSWORD@HOST/DATABASE; a password is better "
    "off in MLFLOW_BACKEND_STORE_URI.  [default: sqlite in --dir]",
)
@click.option(
    "--dir",
    "directory",
    metavar="PATH",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mlflow-server"),
    show_default=True,
    help="Directory of log, database and artifacts, which is made if there is none.",
)
@click.option(
    "--artifacts-destination",
    metavar="PATH",
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    help="Directory of the artifacts, or URI of an object store.  [default: in --dir]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=5000,
    show_default=True,
    help="Port to listen on; 0 for one that is free.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that answer."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Name that clients may call it by, beside localhost; may be given several times.",
)
@click.option(
    "--basic-auth", is_flag=True, help=f"Ask for users and passwords; {_PASSWORD} is that of the user admin."
)
@click.option(
    "--start-timeout",
    metavar="DURATION",
    callback=duration,
    default="2m",
    show_default=True,
    help=f"Longest wait until it answers: {FORMAT}.",
)
def run(
    *,
    backend_store_uri: str | None,
    directory: Path,
    artifacts_destination: str | None,
    host: str,
    port: int,
    workers: int,
    allowed_hosts: tuple[str, ...],
    basic_auth: bool,
    start_timeout: float,
) -> None:
    """Run a tracking server until Ctrl-C.

    It is up when its address is printed: a run has been made on it and read back. Ctrl-C and SIGTERM end it
    with all its processes, and so does the end of this command in any other way. The exit status is 0 when
    it was told to end, 1 when it did not come up or ended by itself, 2 when the command line is wrong.
    """
    password = os.environ.get(_PASSWORD) if basic_auth else None
    if basic_auth and not password:
        raise click.UsageError(f"--basic-auth needs a password of the user admin in {_PASSWORD}")
    try:
        server = LocalServer(
            backend_store_uri,
            directory=directory,
            artifacts_destination=artifacts_destination,
            host=host,
            port=port or None,
            workers=workers,
            allowed_hosts=allowed_hosts,
            admin_password=password,
            start_timeout=start_timeout,
        )
        with _told_to_end(), server:
            _tell(server)
            _stay(server)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (ServerStartError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except _ToldToEnd:
        say("Ended.")


class _ToldToEnd(BaseException):
    """A signal asked this command to end; not an Exception, which what runs meanwhile might catch."""


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM raise in the block, once: the end that they ask for is not to be cut short.

    A signal that is ignored stays so: that is what ``nohup`` does with the one that a closed terminal sends.
    """
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    asked = [one for one in known if signal.getsignal(one) != signal.SIG_IGN]

    def end(_number: int, _frame: FrameType | None) -> None:
        for one in asked:
            signal.signal(one, signal.SIG_IGN)
        raise _ToldToEnd

    before = [(one, signal.signal(one, end)) for one in asked]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def _tell(server: LocalServer) -> None:
    say(f"MLflow's tracking server answers at {server.url}")
    say(f"  its log:        {server.log_path}")
    say(f"  point to it:    export MLFLOW_TRACKING_URI={server.url}")
    if "MLFLOW_TRACKING_USERNAME" in server.environ:
        user = server.environ["MLFLOW_TRACKING_USERNAME"]
        say(f"  and say who:    export MLFLOW_TRACKING_USERNAME={user} MLFLOW_TRACKING_PASSWORD=...")
    say("  end it:         Ctrl-C")


def _stay(server: LocalServer) -> None:
    """Returns never: the server ends by itself, which is a fault, or a signal is raised here."""
    begin = server.log_path.stat().st_size
    while (code := server.wait(_LOOK_SECONDS)) is None:
        pass
    tail = log_tail(server.log_path, begin)
    raise ServerStartError(f"The tracking server ended by itself with exit code {code}.", tail)
