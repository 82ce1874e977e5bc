"""What every command prints for every option, right and wrong, in 80 columns and without the extras.

``pytest tests/unit/cli/test_transcripts.py --bless`` rewrites tests/transcripts, to be looked at before it is
committed.
"""

from __future__ import annotations

import re
import shlex
import sys
from itertools import count
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from transcript_cases import CASES, WRONG, Case, alive, commands, lines, options

from mlflow_sysmetrics.cli import effective_settings, main, output, waiting_points
from mlflow_sysmetrics.cli import options as options_of_commands
from mlflow_sysmetrics.cli.program import EXITS, Command

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
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
    expected = TRANSCRIPTS / f"{'-'.join(['mlflow-sysmetrics', *path.split()])}.txt"
    if request.config.getoption("--bless"):
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8"), f"{expected.name} {BLESS}"


def transcripts() -> list[Path]:
    return sorted(TRANSCRIPTS.glob("*.txt"))


def test_every_transcript_belongs_to_a_command() -> None:
    names = {"-".join(["mlflow-sysmetrics", *path.split()]) for path in COMMANDS}
    assert {path.stem for path in transcripts() if path.stem.startswith("mlflow-sysmetrics")} == names


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
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
        assert "..." not in text.replace("[ARGS]...", ""), path
    busy = CASES["sync"][3]
    assert run(busy, tmp_path / "wide", 200) == run(busy, tmp_path / "80", 80)


def test_every_command_says_what_its_exit_codes_mean() -> None:
    for path, command in COMMANDS.items():
        if not isinstance(command, click.Group):
            assert isinstance(command, Command), path
            assert {0, 1, *EXITS} == set(command.exits), path
