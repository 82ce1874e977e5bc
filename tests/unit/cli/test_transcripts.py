"""What every command prints for every option, right and wrong, in 80 columns and without the extras.

``pytest tests/unit/cli/test_transcripts.py --bless`` rewrites tests/transcripts, to be looked at before it is
committed.
"""

from __future__ import annotations

import re
import shlex
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner
from transcript_cases import CASES, WRONG, Case, alive, commands, lines, options

from mlflow_sysmetrics.cli import effective_settings, main, output, waiting_points
from mlflow_sysmetrics.cli import options as options_of_commands
from mlflow_sysmetrics.cli.program import EXITS, Command
from mlflow_sysmetrics.examples.__main__ import main as example

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "command_line.md"
COMMANDS = dict(commands())
EXTRAS = ("ignite", "optuna", "pandas", "plotly", "rich", "torch", "tqdm")
BLESS = "differs from its transcript: read the difference, then rewrite it with --bless"
VARYING = (
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "YYYY-MM-DD"),
    (re.compile(r"\b[\d,]+ ms\b"), "N ms"),
    (re.compile(r'("(?:oldest_point|newest_point|last_point|began|written|bytes)": )\d+'), r"\1N"),
    (re.compile(r'("(?:age_seconds|seconds)": )[\d.]+'), r"\1N"),
    (re.compile(r"(?m)^(mlflow-sysmetrics |  . mlflow-sysmetrics  )\d\S*"), r"\1N"),
    (re.compile(r"\d\.\d+\.\d+\S* on \w+ \w+"), "3.N.N on Linux x86_64"),
    (re.compile(r"mlflow-sysmetrics-check-[0-9a-f]{8}"), "mlflow-sysmetrics-check-00c0ffee"),
    (re.compile(r"\b(?!(.)\1{31})[0-9a-f]{32}\b"), "0" * 32),
)


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, in an empty directory, without the extras."""
    monkeypatch.setattr(output, "_FEWEST_COLUMNS", 40)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    for module in (options_of_commands, effective_settings, waiting_points):
        monkeypatch.setattr(module, "spool_directory", lambda settings: Path(settings.spool_dir or "state"))


def run(case: Case, directory: Path, columns: int) -> str:
    """Returns what a command line prints, and its exit code."""
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name, value in {"COLUMNS": str(columns), **case.environ}.items():
            patch.setenv(name, value)
        case.world(patch)
        done = CliRunner().invoke(main, shlex.split(case.line), prog_name="mlflow-sysmetrics")
        while alive:
            alive.pop().close(delete=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    text = done.output
    for pattern, shown in VARYING:
        text = pattern.sub(shown, text)
    return f"{text.rstrip()}\n[exit {done.exit_code}]\n"


def title(case: Case) -> str:
    set_here = "".join(f"{name}={value} " for name, value in case.environ.items())
    comment = f"# {case.title}\n" if case.title else ""
    return f"{comment}$ {set_here}mlflow-sysmetrics {case.line}\n"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path or "main")
def test_a_command_prints_what_its_transcript_shows(
    path: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    numbers = map(str, count())
    found = "\n".join(
        title(case) + run(case, tmp_path / next(numbers), 80) for case in lines(path, COMMANDS[path])
    )
    compare("-".join(["mlflow-sysmetrics", *path.split()]), found, request)


def transcripts() -> list[Path]:
    return sorted(TRANSCRIPTS.glob("*.txt"))


def test_every_transcript_belongs_to_a_command() -> None:
    names = {"-".join(["mlflow-sysmetrics", *path.split()]) for path in COMMANDS}
    assert {path.stem for path in transcripts() if path.stem.startswith("mlflow-sysmetrics")} == names


@pytest.mark.parametrize(
    "path", [path for path in transcripts() if "-200-" not in path.stem], ids=lambda path: path.stem
)
def test_no_line_is_wider_than_80_columns_unless_it_is_one_word(path: Path) -> None:
    wide = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if len(line) > 80 and not line.startswith(("$ ", "# ", '  "', "   ")) and len(line.split()) > 1
    ]
    assert wide == []


def test_every_option_with_a_value_has_wrong_values() -> None:
    with_values = {
        path: {max(one.opts, key=len) for one in options(command) if not one.is_flag}
        for path, command in COMMANDS.items()
    }
    assert {path: set(names) for path, names in WRONG.items()} == {
        path: names for path, names in with_values.items() if names
    }


def test_every_option_is_used_in_a_transcript() -> None:
    used = {path: " ".join(case.line for case in cases) for path, cases in CASES.items()}
    missing = [
        f"{path} {option.opts[0]}"
        for path, command in COMMANDS.items()
        for option in options(command)
        if not any(name in used[path].split() for name in option.opts)
        if option.is_flag
    ]
    assert missing == []


@pytest.mark.parametrize("columns", [60, 200])
def test_a_narrow_terminal_is_filled_and_a_wide_one_is_not(columns: int, tmp_path: Path) -> None:
    numbers = map(str, count())
    for path, command in COMMANDS.items():
        case = next(iter(lines(path, command)))
        text = run(case, tmp_path / next(numbers), columns)
        assert [
            line for line in text.splitlines() if len(line) > min(columns, 80) and " " in line.strip()
        ] == [], path
        assert "..." not in text.replace("[ARGS]...", "").replace("[RUN_ID]...", ""), path
    busy = CASES["sync"][3]
    assert run(busy, tmp_path / "wide", 200) == run(busy, tmp_path / "80", 80)


def test_every_command_says_what_its_exit_codes_mean() -> None:
    for path, command in COMMANDS.items():
        if not isinstance(command, click.Group):
            assert isinstance(command, Command), path
            assert {0, 1, *EXITS} <= set(command.exits), path
            assert list(command.exits) == sorted(command.exits), path


def test_the_documents_have_the_exit_codes_of_the_commands(request: pytest.FixtureRequest) -> None:
    rows = [
        "| command | 0 | 1 |",
        "|---|---|---|",
        *(
            f"| `mlflow-sysmetrics {path}` | {command.exits[0]} | {command.exits[1]} |"
            for path, command in COMMANDS.items()
            if isinstance(command, Command)
        ),
        "",
        "| command | code | |",
        "|---|---|---|",
        *(
            f"| `mlflow-sysmetrics {path}` | {code} | {text} |"
            for path, command in COMMANDS.items()
            if isinstance(command, Command)
            for code, text in command.exits.items()
            if code not in {0, 1, *EXITS}
        ),
        "",
        "| code | every command |",
        "|---|---|",
        *(f"| {code} | {text} |" for code, text in EXITS.items()),
    ]
    page = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = page.partition("<!-- exit codes")
    comment, _, rest = rest.partition("\n")
    _, end, after = rest.partition("<!-- end of exit codes")
    expected = "".join([before, begin, comment, "\n", "\n".join(rows), "\n", end, after])
    if request.config.getoption("--bless"):
        DOCUMENT.write_text(page := expected, encoding="utf-8")
    assert page == expected, f"{DOCUMENT.name} {BLESS}"


def script(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Imports a program from scripts/."""
    patch.syspath_prepend(str(Path(__file__).parents[3] / "scripts"))
    return import_module(name)


def printed(main: Callable[[Sequence[str]], int], line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what a program prints that parses its own arguments, and its exit code."""
    program, _, arguments = line.partition(" : ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program.rpartition("/")[2]])
        try:
            code = main(shlex.split(arguments))
        except SystemExit as stopped:
            code = stopped.code
    shown = capsys.readouterr()
    return (
        f"$ python {program} {arguments}".rstrip() + f"\n{(shown.out + shown.err).strip()}\n[exit {code}]\n"
    )


def compare(name: str, found: str, request: pytest.FixtureRequest) -> None:
    expected = TRANSCRIPTS / f"{name}.txt"
    if request.config.getoption("--bless"):
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8"), f"{expected.name} {BLESS}"


def test_the_example_prints_what_its_transcript_shows(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Also that it names the extra that it needs: none is installed here."""
    wrong = (
        "",
        "--help",
        "fly",
        "train epochs=2",
        "train training.num_epochs=many",
        "hpo stage=stage9",
        "train",
    )
    blocks = [printed(example, f"-m mlflow_sysmetrics.examples : {one}", capsys) for one in wrong]
    compare("example", "\n".join(blocks), request)


@pytest.fixture
def with_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """The debug run needs it."""
    monkeypatch.delitem(sys.modules, "rich")


@pytest.mark.usefixtures("with_rich")
def test_the_debug_run_prints_what_its_transcript_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    debug_run, report = script("debug_run", monkeypatch), script("debug_report", monkeypatch)
    wrong = (
        "--help",
        "--seconds soon",
        "--seconds 0",
        "--seconds",
        "--interval 0.01",
        "--interval often",
        "--seconds 2 --interval 1",
        "--no-such-option",
        "an-argument",
    )
    blocks = [printed(debug_run.main, f"scripts/debug_run.py : {one}", capsys) for one in wrong]
    compare("debug_run", "\n".join(blocks), request)
    for columns in (80, 200):
        console = report.Console(width=columns, markup=False, emoji=False, highlight=False)
        report.show(REPORT(report), console)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        compare(f"debug_run-{columns}-columns", "\n".join([*lines, ""]), request)


def REPORT(report: ModuleType) -> object:
    """Returns a report with values of every size, a name of every length, and a problem."""
    values = {
        "cpu_utilization_percentage": ("%", 12, 0.0),
        "disk_read_megabytes_per_second": ("MB/s", 12, 0.000123),
        "gpu_0_memory_usage_megabytes": ("MB", 12, 81_920.4),
        "network_transmit_megabytes": ("MB", 12, 1_234_567.8),
        "process_open_files": ("files", 12, 16.0),
        "process_memory_uss_megabytes": ("MB", 3, 183.25),
    }
    return report.Report(
        run_id="0" * 32,
        tags={
            "sys.cpu": "AMD EPYC 9654 96-Core Processor, with a name that is longer than one line has room",
            "sys.memory_gb": "270.40",
            "sys.metrics": "on",
        },
        metrics={
            f"system/{name}": report.Series(unit, points, value, value, value / 3, value * 2, value)
            for name, (unit, points, value) in values.items()
        },
        not_available=[
            "no NVIDIA GPU: NVML: driver not found",
            "energy: no RAPL package in /sys/class/powercap",
        ],
        problems=[
            "system/process_threads: 1 points in the store, expected at least 2 (failing: no such file or so)"
        ],
        open_with="mlflow ui --backend-store-uri sqlite:///mlflow-sysmetrics-debug.db",
    )


MADE_BY = {
    "half made": "CREATE TABLE experiments (id INTEGER)",
    "is half made": "CREATE TABLE alembic_version (version_num TEXT); CREATE TABLE _alembic_tmp_runs (id INTEGER)",
    "interrupted while MLflow made": "CREATE TABLE alembic_version (version_num TEXT)",
}


@pytest.mark.usefixtures("with_rich")
@pytest.mark.parametrize("said", MADE_BY)
def test_a_half_made_database_is_named_with_what_to_delete(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("debug.db")) as database:
        database.executescript(MADE_BY[said])
    found = script("debug_checks", monkeypatch).broken_file("sqlite:///debug.db")
    assert said in found
    assert found.endswith("rm debug.db")


@pytest.mark.usefixtures("with_rich")
def test_a_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken_file = script("debug_checks", monkeypatch).broken_file
    Path("text").write_text("This is a text and not a database")
    Path("folder").mkdir()
    assert "text is not an SQLite database" in broken_file("sqlite:///text")
    assert "rmdir folder" in broken_file("sqlite:///folder")


@pytest.mark.usefixtures("with_rich")
def test_a_whole_database_is_not_said_to_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken_file = script("debug_checks", monkeypatch).broken_file
    with closing(sqlite3.connect("whole.db")) as database:
        database.executescript(
            "CREATE TABLE experiments (id INTEGER); CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('0a8213491aaa')"
        )
    Path("empty.db").touch()
    stores = (
        "sqlite:///whole.db",
        "sqlite:///empty.db",
        "sqlite:///missing.db",
        "http://127.0.0.1:5000",
        "mlruns",
    )
    assert [broken_file(store) for store in stores] == [None] * len(stores)
