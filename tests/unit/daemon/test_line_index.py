"""Reading points back costs what is read, however many runs write to a journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal import line_index
from mlflow_sysmetrics.daemon.journal.journal import Journal

RUNS = 40
LINES = 5


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that were parsed, as opposed to looked at."""
    found: list[bytes] = []
    understood = line_index.understood

    def counting(text: bytes) -> object:
        found.append(text)
        return understood(text)

    monkeypatch.setattr(line_index, "understood", counting)
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal to which many runs write by turns."""
    journal = Journal.create(tmp_path, 10_000_000)
    runs = [journal.register(str(number), "http://server", 0) for number in range(RUNS)]
    write(journal, runs, 0)
    return journal


def write(journal: Journal, runs: list[int], first: int) -> None:
    for index in range(first, first + 2 * LINES, 2):
        for run in runs:
            journal.append(run, index, 1000 * index, {"a": float(run), "b": index / 7})


def points(run: int, since: int, until: int) -> list[tuple[int, Point]]:
    return [
        (
            index,
            Point(
                "ab"[index % 2], float(run) if index % 2 == 0 else (index - 1) / 7, 1000 * (index // 2 * 2)
            ),
        )
        for index in range(since, until)
    ]


def test_only_the_lines_of_the_run_are_parsed(journal: Journal, parsed: list[bytes]) -> None:
    journal.read(0, 0, 0, 1)
    parsed.clear()
    for run in range(RUNS):
        assert journal.read(run, 0, 0, 1000)[0] == points(run, 0, 2 * LINES)
    assert len(parsed) == RUNS * LINES


def test_reading_on_does_not_begin_at_the_beginning(journal: Journal, parsed: list[bytes]) -> None:
    found, place = journal.read(7, 0, 0, 4)
    assert found == points(7, 0, 4)
    parsed.clear()
    assert journal.read(7, 4, place, 2)[0] == points(7, 4, 6)
    assert len(parsed) == 1


def test_what_is_appended_later_is_found(journal: Journal, parsed: list[bytes]) -> None:
    journal.read(0, 0, 0, 1)
    write(journal, list(range(RUNS)), 2 * LINES)
    parsed.clear()
    assert journal.read(9, 2 * LINES, 0, 1000)[0] == points(9, 2 * LINES, 4 * LINES)
    assert len(parsed) <= LINES + 1  # the line before may hold the first point, too


def test_a_swap_moves_the_lines(journal: Journal) -> None:
    journal.read(0, 0, 0, 1)
    journal.acknowledge(3, 2 * LINES)
    journal.compact()
    assert journal.read(3, 0, 0, 1000)[0] == []
    assert journal.read(4, 0, 0, 1000)[0] == points(4, 0, 2 * LINES)


def test_a_file_that_others_have_written_to_is_looked_at_again(journal: Journal) -> None:
    journal.read(0, 0, 0, 1)
    text = journal.path.read_bytes()
    lines = text.splitlines(keepends=True)
    of_run = [line for line in lines if line.startswith(b'{"r":5,"i":')]
    others = [line for line in lines if line not in of_run]
    journal.path.write_bytes(b"".join([*others, *of_run]))  # of the same length, in another order
    assert journal.read(5, 0, 0, 1000)[0] == points(5, 0, 2 * LINES)


@pytest.mark.parametrize("glue", [b"", b"#torn\n"])
def test_lines_that_are_glued_together_are_read(journal: Journal, glue: bytes) -> None:
    text = journal.path.read_bytes()
    lines = text.splitlines(keepends=True)
    number = next(at for at, line in enumerate(lines) if line.startswith(b'{"r":5,"i":4'))
    lines[number] = lines[number].rstrip(b"\n") + glue
    journal.path.write_bytes(b"".join(lines))
    for run in (5, 6):
        assert journal.read(run, 0, 0, 1000)[0] == points(run, 0, 2 * LINES)


@pytest.mark.parametrize("digit", [b"2", b"9"])
def test_a_damaged_index_misleads_nobody(journal: Journal, digit: bytes) -> None:
    text = journal.path.read_bytes()
    journal.path.write_bytes(text.replace(b'{"r":5,"i":4', b'{"r":5,"i":' + digit))
    found = journal.read(5, 0, 0, 1000)[0]
    assert found == [pair for pair in points(5, 0, 2 * LINES) if pair[0] not in {4, 5}]
    assert journal._is_damaged
