"""The lines of a journal: written, parsed, and garbage of every kind."""

from __future__ import annotations

import io
import math
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_sysmetrics.daemon.journal.lines import (
    TORN,
    AcknowledgedLine,
    DroppedLine,
    EndLine,
    Header,
    Line,
    NewerFormat,
    PointsLine,
    RunLine,
    dump,
    lines,
    parse,
    understood,
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


def without_checksum(text: bytes) -> bytes:
    """Returns a line as versions without checksums wrote it."""
    return text[: -len(b',"c":"00000000"}\n')] + b"}\n"


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


def test_unknown_fields_of_a_checked_line_are_ignored() -> None:
    text = b'{"r":3,"a":7,"later":[1]'
    assert parse(text + b',"c":"%08x"}' % crc32(text)) == AcknowledgedLine(3, 7)


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_without_a_checksum_is_read_as_older_versions_wrote_it(line: Line) -> None:
    assert parse(without_checksum(dump(line))) == line


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_with_a_damaged_checksum_is_not_taken_for_one_without(line: Line) -> None:
    whole = dump(line)
    places = range(len(whole) - len(b',"c":"00000000"}\n'), len(whole) - 1)
    changed = [whole[:at] + bytes([byte]) + whole[at + 1 :] for at in places for byte in b'a0"}, :rtmie']
    assert {parse(text) for text in changed if text != whole} == {None}


def test_lines_without_a_newline_between_them_are_all_read() -> None:
    glued = b"".join(dump(line).rstrip() for line in EVERY_KIND)
    assert list(understood(glued + b"\n")) == EVERY_KIND


@pytest.mark.parametrize("line", EVERY_KIND)
def test_a_line_after_the_remains_of_another_is_read(line: Line) -> None:
    assert list(understood(b'{"r":0,"i":7,"t":17000' + dump(line))) == [None, line]


def test_the_remains_of_a_line_that_stayed_in_memory_are_no_damage() -> None:
    whole = dump(EVERY_KIND[3])
    torn = [whole[:cut] + TORN + b"\n" for cut in range(len(whole) - 1)]
    assert [list(understood(text)) for text in torn] == [[]] * len(torn)


def test_zeros_at_the_end_of_a_file_are_damage() -> None:
    assert list(understood(b"\0" * 100)) == [None]


@pytest.mark.parametrize("text", [b"[" * 3000, b'{"r":' * 3000 + b',"c":"00000000"}', b"{" * (1 << 20)])
def test_long_garbage_is_damage_and_takes_no_time(text: bytes) -> None:
    assert list(understood(text + b"\n")) == [None]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        (b'{"journal":2,"host":"h","pid":1,"began":1}', None),
        (b'{"journal":3,"needs":"0.9.1","c":{"kind":"sha"}}', "0.9.1"),
        (b'{"journal":2,"needs":"\\u001b[2J"}', None),
    ],
)
def test_a_newer_format_is_recognised_with_the_version_that_reads_it(text: bytes, needs: str | None) -> None:
    header = parse(text)
    assert isinstance(header, NewerFormat)
    assert header.needs == needs


@pytest.mark.heavy
@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_no_bytes_raise(text: bytes) -> None:
    parse(text)


@pytest.mark.heavy
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
