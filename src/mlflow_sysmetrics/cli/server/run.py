"""`mlflow-sysmetrics server run`: runs a tracking server in the foreground, without Docker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import click

from mlflow_sysmetrics.cli.options import DURATION_FORMAT, LocalDirectory, Name, Whole, duration
from mlflow_sysmetrics.cli.output import say, say_wrapped
from mlflow_sysmetrics.cli.program import FAILED, Command, Stopped, raising_on_signals
from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.launch import log_tail
from mlflow_sysmetrics.server.local_server import LocalServer
from mlflow_sysmetrics.server.store_uri import server_store

_ADMIN_VARIABLE = "MLFLOW_AUTH_ADMIN_PASSWORD"
_POLL_SECONDS = 1.0


def _checked_store(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            server_store(value)
        except SettingsError as error:
            raise click.BadParameter(str(error).partition(" ")[2], ctx, option) from error
        except ServerStartError:
            pass  # a driver is missing: not the fault of the command line
    return value


@click.command(
    cls=Command,
    short_help="Run a tracking server until Ctrl-C.",
    exits={0: "a signal stopped the server", FAILED: "the server did not start, or exited by itself"},
)
@click.option(
    "--backend-store-uri",
    metavar="URI",
    type=Name("the URI of a database"),
    callback=_checked_store,
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Database, as sqlite:////PATH.db or postgresql://USER:PASSWORD@HOST/DATABASE; put a password into "
    "MLFLOW_BACKEND_STORE_URI rather than here.  [default: sqlite in --dir]",
)
@click.option(
    "--dir",
    "directory",
    metavar="PATH",
    type=LocalDirectory(),
    default=Path("mlflow-server"),
    show_default=True,
    help="Directory of log, database and artifacts; created if it does not exist.",
)
@click.option(
    "--artifacts-destination",
    metavar="PATH",
    type=Name("a directory or the URI of an object store"),
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    help="Directory of the artifacts, or URI of an object store.  [default: in --dir]",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    type=Name("an address of this machine"),
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on.",
)
@click.option(
    "--port",
    metavar="N",
    type=Whole(0, 65_535),
    default=5000,
    show_default=True,
    help="Port to listen on, up to 65535; 0 picks a free one.",
)
@click.option(
    "--workers",
    metavar="N",
    type=Whole(1),
    default=1,
    show_default=True,
    help="Number of worker processes.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    type=Name("a host name"),
    multiple=True,
    help="Host name that clients may call besides localhost; repeatable.",
)
@click.option(
    "--basic-auth",
    is_flag=True,
    help=f"Require users and passwords; {_ADMIN_VARIABLE} is the password of admin.",
)
@click.option(
    "--start-timeout",
    metavar="DURATION",
    callback=duration,
    default="2m",
    show_default=True,
    help=f"Longest wait until the server answers: {DURATION_FORMAT}.",
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

    Prints the address once the server is up: a run has been created on it and read back. Ctrl-C and SIGTERM
    stop the server with all its processes, and so does any other end of this command.
    """
    password = os.environ.get(_ADMIN_VARIABLE) if basic_auth else None
    if basic_auth and not password:
        raise click.UsageError(f"--basic-auth needs the password of the user admin in {_ADMIN_VARIABLE}")
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
        say_wrapped(
            f"Starting MLflow's tracking server in {directory} and waiting until a run can be made on it, at"
            f" most {start_timeout:g} s ..."
        )
        with raising_on_signals(), server:
            _print_address(server)
            _wait_for_exit(server)
    except SettingsError as error:
        raise _of_the_option(error) from error
    except (ServerStartError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except Stopped:
        say("Stopped.")


def _of_the_option(error: SettingsError) -> click.UsageError:
    """Returns an error about an argument of `LocalServer` as one about the option that gives it."""
    argument, _, rest = str(error).partition(" ")
    for option in run.params:
        if option.name == argument:
            return click.BadParameter(rest, param_hint=max(option.opts, key=len))
    return click.UsageError(str(error))


def _print_address(server: LocalServer) -> None:
    say(f"MLflow's tracking server answers at {server.url}")
    say(f"  log:            {server.log_path}")
    say(f"  to use it:      export MLFLOW_TRACKING_URI={server.url}")
    if "MLFLOW_TRACKING_USERNAME" in server.environ:
        user = server.environ["MLFLOW_TRACKING_USERNAME"]
        say(f"  as user:        export MLFLOW_TRACKING_USERNAME={user} MLFLOW_TRACKING_PASSWORD=...")
    say("  to stop it:     Ctrl-C")


def _wait_for_exit(server: LocalServer) -> NoReturn:
    """Waits until the server exits by itself or a signal raises.

    Raises:
        ServerStartError: the server exited by itself.
    """
    begin = server.log_path.stat().st_size
    while (code := server.wait(_POLL_SECONDS)) is None:
        pass
    tail = log_tail(server.log_path, begin)
    raise ServerStartError(f"The tracking server exited by itself with code {code}.", tail)
