"""Tables and counts."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.cli.output import counted, print_table
from mlflow_sysmetrics.errors import shortened


def test_columns_fit_their_widest_cell_and_numbers_are_right_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("RUN", "POINTS"), [("a", "1,200"), ("longer", "-")])
    assert capsys.readouterr().out == "RUN     POINTS\na        1,200\nlonger       -\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 points"), (1, "1 point"), (1200, "1,200 points")])
def test_a_count_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "point") == text


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("as it is", 8, "as it is"),
        ("some words that are too many", 16, "some words ..."),
        ("some words that are too many", 14, "some words ..."),
        ("/a/path/of/one/word/only", 12, "/a/path/o..."),
        ("a /a/path/of/one/word/only", 12, "a /a/path..."),
    ],
)
def test_a_long_text_is_cut_between_words(text: str, most: int, shown: str) -> None:
    assert shortened(text, most) == shown
    assert len(shown) <= most
