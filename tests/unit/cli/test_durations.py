"""Durations on the command line, and lengths of time in the output."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.cli.options import parse_duration
from mlflow_sysmetrics.cli.output import length_of_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("1.5h", 5400),
        (" 10M ", 600),
        ("600", 600),
        ("0", 0),
    ],
)
def test_a_number_with_its_unit_is_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "ten m", "-5m", "10 m", "1e3s", "10min", "1h30m"])
def test_an_invalid_duration_is_named_with_the_format(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 10m, 2h, 1d, or plain seconds") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
        (-5, "0 s"),
    ],
)
def test_a_length_of_time_has_its_largest_fitting_unit(seconds: float, text: str) -> None:
    assert length_of_time(seconds) == text
