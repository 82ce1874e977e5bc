"""Formatting of values as tags."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.facts.values import gigabytes, joined, number, shortened


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2.0, "2"), (1.5, "1.5"), (1 / 3, "0.33"), (127.53, "127.53"), (0.001, "0.01"), (384, "384")],
)
def test_formats_a_number_of_cores(value: float, expected: str) -> None:
    assert number(value) == expected


def test_gigabytes_have_two_decimals() -> None:
    assert gigabytes(16_384_000_000) == "16.38"


def test_a_value_is_one_printable_line() -> None:
    assert shortened("  AMD\tEPYC\n9654\x00 \u200b ") == "AMD EPYC 9654"


def test_a_long_value_is_cut() -> None:
    assert shortened("x" * 300) == "x" * 246 + "..."
    assert shortened("x" * 249) == "x" * 249


def test_a_list_is_cut_between_items() -> None:
    assert joined(["a", "b"], ",") == "a,b"
    assert joined(["x" * 100] * 4, ",") == f"{'x' * 100},{'x' * 100},+2 more"


def test_an_item_that_is_too_long_is_cut() -> None:
    assert len(joined(["x" * 300, "y"], ",")) < 250
