"""How the program ends: with an exit code and a sentence, whatever its terminal, pipe or installation is like."""

from __future__ import annotations

import builtins
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import click
import pytest
from click.testing import CliRunner
from orphaned import living, orphan

from mlflow_sysmetrics.cli import main, output
from mlflow_sysmetrics.cli.__main__ import run
from mlflow_sysmetrics.cli.findings import Finding, Mark, Section, print_summary
from mlflow_sysmetrics.cli.output import print_json, print_table, say
from mlflow_sysmetrics.daemon.state import Status


@contextlib.contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """Makes the standard output a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield stream


@pytest.mark.parametrize(
    "line", ["status", "sync --dry-run", "server print-compose", "--help", "status --json"]
)
def test_a_closed_output_ends_a_command_without_an_error(line: str, tmp_path: Path) -> None:
    directory = ["--dir", str(tmp_path)] if line.startswith(("status", "sync")) else []
    with closed_pipe() as stream:
        with pytest.raises(SystemExit) as ended:
            main(args=[*line.split(), *directory], prog_name="mlflow-sysmetrics")
        stream.flush()  # as the interpreter does when it exits
    assert ended.value.code == 141


@pytest.mark.parametrize("missing", ["click", "psutil", "filelock"])
def test_a_missing_library_is_named_with_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def imported(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "mlflow_sysmetrics.cli":
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == (
        f"Error: the command needs {missing}, which is not installed: pip install {missing}"
    )


def test_an_interrupt_while_the_program_is_imported_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def imported(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "mlflow_sysmetrics.cli":
            raise KeyboardInterrupt
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(SystemExit) as ended:
        run()
    assert (ended.value.code, capsys.readouterr().err) == (130, "")


@pytest.mark.parametrize("command", ["status", "sync", "reap"])
def test_an_interrupted_command_exits_with_130(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module(f"mlflow_sysmetrics.cli.{command}"), "read_journals", interrupted)
    done = CliRunner().invoke(main, [command, "--dir", str(tmp_path)])
    assert (done.exit_code, done.stderr.strip()) == (130, "Interrupted.")


AGAIN = """
import os, signal, sys
from types import SimpleNamespace
from mlflow_sysmetrics.cli import __main__
def main(**_):
    where = sys.argv[1]
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        if where == "meanwhile":
            os.kill(os.getpid(), signal.SIGINT)
class AtTheEnd:
    def __del__(self):  # after all exit functions
        os.kill(os.getpid(), signal.SIGINT)
if sys.argv[1] == "at the end":
    sys.kept = AtTheEnd()
sys.modules["mlflow_sysmetrics.cli.program"] = SimpleNamespace(main=main)
__main__.run()
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal to send")
@pytest.mark.parametrize("where", ["once", "meanwhile", "at the end"])
def test_a_second_ctrl_c_changes_no_exit_code(where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, where], capture_output=True, check=False, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")


def printed(encoding: str, act: Any) -> str:
    """Returns what is printed to a standard output with that encoding."""
    raw = BytesIO()
    raw.close = lambda: None  # type: ignore[method-assign] - click wraps it again, and closes the wrapper
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", TextIOWrapper(raw, encoding=encoding, write_through=True))
        act()
    return raw.getvalue().decode(encoding)


# A character outside of ASCII, a byte of a path that is not UTF-8, a control character, a line break.
ODD = "zo\xeb \udcff \x1b[2J \n end"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_output_can_be_encoded(encoding: str) -> None:
    text = printed(encoding, lambda: (say(ODD), print_json({"name": ODD}), print_table(("NAME",), [(ODD,)])))
    assert "\x1b" not in text
    assert "\\udcff" in text
    assert text.splitlines()[-1].endswith("\\x1b[2J \\n end")


def test_a_table_that_does_not_fit_wraps_its_last_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_FEWEST_COLUMNS", 40)
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("RUN", "WHY"), [("1" * 32, "a long reason that has several words in it")], indent="  ")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[2] == " " * 36 + "several words in it"


def test_digits_of_a_name_do_not_make_it_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A LONG HEAD", "POINTS"), [("7", "7")])
    assert capsys.readouterr().out.splitlines()[1] == "7                 7"


NOTHING = Section("a", "A", [Finding("x", Mark.GOOD, "fine"), Finding("y", Mark.ABSENT, "not there")])


@pytest.mark.parametrize("mark", [Mark.NOTE, Mark.WRONG])
@pytest.mark.parametrize("remedy", [None, "do this", "do that " * 20])
def test_nothing_is_wrong_only_where_nothing_is_to_be_done(
    mark: Mark, remedy: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary([NOTHING, Section("b", "B", [Finding("z", mark, "something", remedy)])])
    shown = capsys.readouterr().out
    assert "Nothing is wrong" not in shown
    assert ("Next: " in shown) == (remedy is not None or mark is Mark.WRONG)


def test_nothing_is_wrong_where_something_is_absent(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([NOTHING])
    assert capsys.readouterr().out == "Nothing is wrong.\n"


@pytest.mark.parametrize("mark", [Mark.GOOD, Mark.PLAIN, Mark.ABSENT])
def test_what_needs_a_remedy_is_a_note_or_wrong(mark: Mark) -> None:
    with pytest.raises(ValueError, match="must be a note or wrong"):
        Finding("x", mark, "fine", "do something")


def test_journals_of_one_server_are_listed_once(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    living(tmp_path, "run-2", 3).close(delete=False)
    done = CliRunner().invoke(main, ["status", "--dir", str(tmp_path)])
    assert done.stdout.count("http://tracking:5000") == 1


def test_a_command_can_be_called_from_a_program(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError):
        main.main(["status", "--no-such-option"], standalone_mode=False)
    main.main(["status", "--dir", str(tmp_path)], standalone_mode=False)


BUSY = Status(
    running=True,
    attached=("a" * 32,),
    ticks=1234,
    points_delivered=56_789,
    points_pending=12,
    points_unsaved=2,
    last_error="<b>Connection refused</b>",
    collectors={"cpu": "ok", "gpu (amd)": "unavailable: no AMD GPU", "disk": "hanging: no answer from /mnt"},
    journal="/spool/x.jsonl",
    journal_bytes=4321,
)


def test_a_status_prints_as_a_few_lines() -> None:
    assert repr(BUSY).splitlines() == [
        "<mlflow-sysmetrics: sampling, 1 run attached>",
        "  ticks      1,234",
        "  points     56,789 delivered, 12 waiting (2 in memory only), 0 dropped",
        "  sources    1 read, 1 not available here; .collectors says why",
        "  source     disk: hanging: no answer from /mnt",
        "  journal    /spool/x.jsonl, 4,321 bytes",
        "  last error <b>Connection refused</b>",
    ]
    assert len(repr(Status()).splitlines()) == 3


def test_a_status_is_a_table_in_a_notebook_that_no_error_can_change() -> None:
    table = BUSY._repr_html_()
    assert "<b>" not in table
    assert "&lt;b&gt;Connection refused&lt;/b&gt;" in table
    assert table.count("<tr>") == len(repr(BUSY).splitlines()) - 1
