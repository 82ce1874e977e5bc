"""The lines of a journal: written, parsed, and garbage of every kind."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    DroppedLine,
    EndLine,
    Header,
    Line,
    PointsLine,
    RunLine,
    dump,
    lines,
    parse,
)

EVERY_KIND = [
    Header("node-7", 4711, 1_700_000_000_000),
    RunLine(0, "abc", "http://mlflow:5000", 1_700_000_000_000, "/sys/fs/cgroup/job", 2),
    RunLine(1, "def", "sqlite:////data/mlflow.db", None, None, None),
    PointsLine(0, 24, 1_700_000_010_000, {"system/cpu": 1.5, "system/größe": -0.001}),
    PointsLine(3, 0, 1_700_000_010_000, {"train/loss_step": 0.25, "train/learning_rate": math.inf}, 1200),
    AcknowledgedLine(0, 48),
    DroppedLine(0, 5),
    EndLine(0),
]


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_is_parsed_as_it_was_written(line: Line) -> None:
    assert parse(dump(line)) == line


def test_a_nan_value_is_kept() -> None:
    back = parse(dump(PointsLine(0, 0, 0, {"train/loss_step": math.nan, "train/a": -math.inf}, 7)))
    assert isinstance(back, PointsLine)
    assert math.isnan(back.values["train/loss_step"])
    assert back.values["train/a"] == -math.inf


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_ends_with_its_only_newline(line: Line) -> None:
    text = dump(line)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_torn_line_is_ignored(line: Line) -> None:
    whole = dump(line).rstrip(b"\n")
    assert [parse(whole[:cut]) for cut in range(len(whole))] == [None] * len(whole)


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_that_lacks_only_its_newline_is_whole(line: Line) -> None:
    assert parse(dump(line).rstrip(b"\n")) == line


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"null",
        b"[1,2]",
        b"\xff\xfe",
        b"\0" * 64,
        b"[" * 100_000,
        b'{"newer":"kind of line"}',
        b'{"r":-1,"a":5}',
        b'{"r":0,"a":"5"}',
        b'{"r":true,"a":5}',
        b'{"r":0,"i":0,"t":0,"m":[1]}',
        b'{"r":0,"i":0,"t":0,"m":{"k":"1"}}',
        b'{"r":0,"i":0,"t":0,"m":{"k":1,"l":NaN}}',
        b'{"r":0,"i":0,"t":0,"m":{"k":Infinity}}',
        b'{"r":0,"i":0,"t":0,"m":{"k":true}}',
        b'{"r":0,"i":0,"t":0,"m":{"k":1' + b"0" * 400 + b"}}",
        b'{"r":0,"i":0.5,"t":0,"m":{"k":1}}',
        b'{"run":0,"id":null,"uri":"http://x"}',
        b'{"run":0,"uri":"http://x"}',
        b'{"run":0,"id":"a","uri":"http://x","started":"now"}',
        b'{"journal":1}',
    ],
)
def test_unknown_content_is_ignored(text: bytes) -> None:
    assert parse(text) is None


def test_unknown_fields_are_ignored() -> None:
    assert parse(b'{"r": 3, "a": 7, "later": [1]}') == AcknowledgedLine(3, 7)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_no_bytes_raise(text: bytes) -> None:
    parse(text)


@settings(max_examples=200)
@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)))
def test_any_key_and_any_finite_value_come_back_exactly(values: dict[str, float]) -> None:
    back = parse(dump(PointsLine(0, 0, 0, values)))
    assert isinstance(back, PointsLine)
    assert [(key, value.hex()) for key, value in back.values.items()] == [
        (key, value.hex()) for key, value in values.items()
    ]


def test_a_file_without_newlines_is_read_in_pieces() -> None:
    assert max(map(len, lines(io.BytesIO(b"x" * 3_000_000)))) <= 1 << 20


def test_reading_stops_at_the_limit() -> None:
    assert list(lines(io.BytesIO(b"one\ntwo\nthree\n"), 8)) == [b"one\n", b"two\n"]
