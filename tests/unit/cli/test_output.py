"""Tables and counts."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.cli import output
from mlflow_sysmetrics.cli.output import columns_of, counted, cut, print_table, say_wrapped
from mlflow_sysmetrics.errors import shortened


def test_columns_fit_their_widest_cell_and_numbers_are_right_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("RUN", "POINTS"), [("a", "1,200"), ("longer", "-")])
    assert capsys.readouterr().out == "RUN     POINTS\na        1,200\nlonger       -\n"


# In a terminal each of these takes two columns, except the accent, which takes none.
NAMES = ("実験その一", "e\u0301tude", "plain", "🚀 launch", "ﾃｽﾄ")
COLUMNS = (10, 5, 5, 9, 3)


def test_wide_characters_take_two_columns_and_accents_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(map(columns_of, NAMES)) == COLUMNS
    print_table(("RUN", "POINTS"), [(name, "1") for name in NAMES])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [columns_of(line) for line in lines] == [len("RUN") + 7 + 2 + len("POINTS")] * len(NAMES)


def test_a_line_with_wide_characters_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_FEWEST_COLUMNS", 80)  # see conftest.py
    say_wrapped(" ".join(["実験その一"] * 30))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(columns_of, lines)) in range(70, 81)
    assert "".join(lines).replace(" ", "") == "実験その一" * 30


@pytest.mark.parametrize("most", range(5, 12))
def test_a_name_is_cut_at_columns(most: int) -> None:
    shown = cut("実験その一abc", most)
    assert most - 1 <= columns_of(shown) <= most
    assert shown.endswith("...")
    assert "実験その一".startswith(shown.removesuffix("..."))


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
