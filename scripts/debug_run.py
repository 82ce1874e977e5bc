"""Shows that mlflow-sysmetrics works: starts a run, works for a few seconds, reads back what is stored.

    python scripts/debug_run.py [--seconds 6] [--interval 0.5] [--json]

The run goes to the store of MLFLOW_TRACKING_URI, by default to a SQLite file in the current directory. Exits
with 0 only if the run's tags and metrics are really stored, with 1 after printing what is missing and what to
do, with 2 if an option is wrong, with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

try:
    from rich.console import Console
except ImportError:
    sys.exit('This script needs rich: pip install "rich>=13"')
try:
    from debug_checks import broken_file, check
    from debug_report import PREFIX, Report, Series, show, show_json
    from debug_work import work

    from mlflow_sysmetrics import Settings, settings
    from mlflow_sysmetrics.daemon.delivery.sink import redacted
    from mlflow_sysmetrics.errors import SettingsError
    from mlflow_sysmetrics.runtime.distribution import reinstall_command
except ImportError as error:
    sys.exit(
        f"mlflow-sysmetrics cannot be imported ({error}). Install it from this source tree: pip install "
        f"{Path(__file__).resolve().parents[1]}. (The package of this name on the index is another project.)"
    )

DEFAULT_STORE = "sqlite:///mlflow-sysmetrics-debug.db"
TAG_PREFIXES = ("sys.", "sysmetrics.")
LONGEST_SECONDS = 3600
FEWEST_INTERVALS = 3  # one before the first CPU point, one before the second, and one that may be cut short
WIDTH = 1000  # columns if the output goes to a file or a pipe: wide enough that no key is split
DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
HTTP = frozenset({"http", "https"})
ERROR_COLUMNS = 80
WRONG_USE = 2
INTERRUPTED = 130  # 128 + SIGINT, as in shells


class Problem(Exception):
    """Says what is wrong and what to do about it."""


def main(arguments: Sequence[str] | None = None, out: Console | None = None) -> int:
    """Returns the exit status; prints the report for people to `out`, by default stdout."""
    options = parse_options(arguments)
    # MLflow's INFO lines (tables created, one per database migration) would drown ours. Warnings stay.
    logging.disable(logging.INFO)
    progress = plain_console(stderr=True)
    try:
        prepare_environment(options.interval)
        report = debug_run(options.seconds, progress)
    except Problem as problem:
        report = Report(problems=[str(problem)])
    except KeyboardInterrupt:
        progress.print("Interrupted.")
        return INTERRUPTED
    if options.json:
        show_json(report)
    else:
        show(report, out or plain_console())
    return 1 if report.problems else 0


class Parser(argparse.ArgumentParser):
    """Prints errors in lines that fit a terminal, about options and not about "argument"."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, and exits."""
        about = re.sub(r"^argument (\S+): ", r"\1 ", message)
        wrapped = textwrap.fill(
            f"Error: {about}", ERROR_COLUMNS, subsequent_indent="  ", break_on_hyphens=False
        )
        self.exit(WRONG_USE, f"{self.format_usage()}\n{wrapped}\n")


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options; exits with status 2 if one is invalid."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=_seconds, default=6.0, help="how long to work (default: 6)")
    parser.add_argument(
        "--interval", type=_interval, default=0.5, help="seconds between two points (default: 0.5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on stdout")
    options = parser.parse_args(arguments)
    least = options.interval * FEWEST_INTERVALS
    if options.seconds < least:
        parser.error(
            f"--seconds must be at least {least:g} for points every {options.interval:g} s, "
            f"got {options.seconds:g}; or use a smaller --interval"
        )
    return options


def _seconds(text: str) -> float:
    value = _number(text)
    if 1 <= value <= LONGEST_SECONDS:
        return value
    raise argparse.ArgumentTypeError(f"must be from 1 to {LONGEST_SECONDS} seconds, got {text!r}")


def _interval(text: str) -> float:
    try:
        return Settings(sampling_interval=_number(text)).sampling_interval
    except SettingsError as reason:
        raise argparse.ArgumentTypeError(str(reason).partition(" ")[2]) from reason


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be seconds such as 6 or 2.5, got {text!r}") from None


def plain_console(*, stderr: bool = False) -> Console:
    """Returns a console that prints text unchanged: no markup, no emoji, no colours for numbers."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    return console


def prepare_environment(interval: float) -> None:
    """Sets the variables that MLflow and the plugin read, before they are imported.

    Raises:
        Problem: the tracking URI is malformed.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    if _malformed(uri):
        raise Problem(f"MLFLOW_TRACKING_URI={uri.rpartition('@')[2]!r} is malformed. {_remedy('')}")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ[settings.SAMPLING_INTERVAL] = str(interval)
    os.environ[settings.SAMPLES_BEFORE_LOGGING] = "1"
    os.environ.pop("MLFLOW_RUN_ID", None)  # a separate run, even inside an MLflow project
    # MLflow would retry for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # no page of advice if git is not installed


def _malformed(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        port = parts.port if parts.scheme in HTTP else None
    except ValueError:  # raised by urlsplit and by port
        return True
    return parts.scheme in HTTP and (parts.hostname is None or port == 0)


def debug_run(seconds: float, console: Console) -> Report:
    """Starts a run, works, and returns what is stored of it.

    Raises:
        Problem: there is no run to report on.
    """
    found = entry_points(group="mlflow.run_context_provider")
    if not any(point.value.startswith("mlflow_sysmetrics.") for point in found):
        raise Problem(
            "mlflow-sysmetrics can be imported but is not installed, so MLflow finds no entry points of it. "
            f"Install it: {reinstall_command()}."
        )
    uri = os.environ["MLFLOW_TRACKING_URI"]
    run = make_run(uri, seconds, console)
    with quiet_store(f"Run {run.info.run_id} could not be read from {redacted(uri)}", uri):
        return read_back(run, uri)


def make_run(uri: str, seconds: float, console: Console) -> Any:
    """Starts a run and works in it; Ctrl-C ends it as KILLED.

    Raises:
        Problem: the store does not accept it.
    """
    console.print("Importing MLflow, which takes a few seconds the first time ...")
    with quiet_store(f"No run could be started on {redacted(uri)}", uri):
        import mlflow

        if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
            from mlflow.store.db import utils

            utils.MAX_RETRY_COUNT = 1  # ten attempts take 100 s, and no variable changes that
    try:
        with quiet_store(f"No run could be started on {redacted(uri)}", uri):
            run = mlflow.start_run(run_name="sysmetrics-debug")
        console.print(f"Working for {seconds:g} s in a run on {redacted(uri)}.", soft_wrap=True)
        work(seconds, console)
    except KeyboardInterrupt:
        if mlflow.active_run() is not None:
            with quiet_store("The interrupted run could not be ended", uri):
                mlflow.end_run("KILLED")
            console.print("The run has ended as KILLED.")
        raise
    with quiet_store(f"Run {run.info.run_id} could not be ended on {redacted(uri)}", uri):
        mlflow.end_run()
    return run


@contextlib.contextmanager
def quiet_store(failure: str, uri: str) -> Iterator[None]:
    """Keeps MLflow's output off stdout, and turns exceptions of its stores into a sentence.

    Raises:
        Problem: the block raised anything but KeyboardInterrupt.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:
        # Stores are MLflow's, a database driver's or a plugin's: they may raise anything.
        broken = broken_file(uri)
        raise Problem(f"{failure}: {broken or f'{_cause(error)}. {_remedy(uri)}'}") from error


def _cause(error: BaseException) -> str:
    """Returns why a store failed, in one line; prefers the error of the network or the file system."""
    innermost = error
    while (inner := innermost.__cause__ or innermost.__context__) is not None:
        innermost = inner
    chosen = innermost if isinstance(innermost, OSError) else error
    lines = str(chosen).strip().splitlines() or [type(chosen).__name__]
    return textwrap.shorten(lines[0], 300, placeholder=" ...").rstrip(".")


def _remedy(uri: str) -> str:
    if urlsplit(uri).scheme in HTTP:
        return (
            "Check that the tracking server is running at this address; correct MLFLOW_TRACKING_URI, "
            "or unset it to use a local SQLite file."
        )
    if uri == DEFAULT_STORE:
        file = uri.removeprefix("sqlite:///")
        if not Path(file).exists():
            return "Run this in a directory in which you may create files, or set MLFLOW_TRACKING_URI."
        return f"If the fault is in {file}, which holds only runs of this script, delete it: rm {file}"
    return (
        "Set MLFLOW_TRACKING_URI to http://<host>:<port> or sqlite:///<file>, "
        "or unset it to use a local SQLite file."
    )


def read_back(run: Any, uri: str) -> Report:
    """Returns what is stored of a run, and what is missing."""
    import mlflow

    client = mlflow.MlflowClient()
    run_id = run.info.run_id
    stored = client.get_run(run_id).data
    keys = [key for key in stored.metrics if key.startswith(PREFIX)]
    report = Report(
        run_id=run_id,
        tags={name: value for name, value in stored.tags.items() if name.startswith(TAG_PREFIXES)},
        metrics={key: Series.of(key, client.get_metric_history(run_id, key)) for key in keys},
        open_with=open_with(uri, run),
    )
    check(report)
    return report


def open_with(uri: str, run: Any) -> str:
    """Returns the address that shows the run, or the command that opens the UI on its store."""
    if urlsplit(uri).scheme in HTTP:
        return f"{redacted(uri).rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    # The program beside this interpreter, because its environment may not be active.
    beside = shutil.which("mlflow", path=str(Path(sys.executable).parent))
    shown = min(os.path.relpath(beside), beside, key=len) if beside else "mlflow"
    return f"{shlex.quote(shown)} ui --backend-store-uri {shlex.quote(redacted(uri))}"


if __name__ == "__main__":
    sys.exit(main())
