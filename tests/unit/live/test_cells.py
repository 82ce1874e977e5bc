"""Text of others in a terminal: it takes the cells that it says, and controls nothing."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.live.cells import Span, fitted, inert, row, width, wrapped

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\nb\r\tc",
    "\u202egnp.exe",
    "\u2066x\u2069\u200f\u061c",
    "Z\u0310\u0311\u0312a",
    "名前が長い",
    "\u200b\u200d\ufeff",
    "\u2028\u2029",
    "\ud800",
    "[bold red]markup[/]",
    "👩\u200d👩\u200d👧",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_controls_nothing(text: str) -> None:
    shown = inert(text)
    assert shown.isprintable()
    assert not set(shown) & set("\x1b\x9b\u202e\u2066\u200f\u200d\n\r\t")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("cells", [1, 2, 5, 40])
def test_a_fitted_name_takes_exactly_its_cells(text: str, cells: int) -> None:
    assert width(fitted(inert(text), cells)) == cells
    assert width(fitted(inert(text), cells, right=True)) == cells


def test_characters_that_stack_are_left_out_and_wide_ones_count_twice() -> None:
    assert inert("Z\u0310\u0311a") == "Za"
    assert width("名a") == 3
    assert fitted("名前", 3) == "名~"
    assert fitted("名前", 2) == "~ "


def test_escapes_are_shown_as_such() -> None:
    assert inert("\x1b[31m\u202e") == "\\x1b[31m\\u202e"


def test_markup_stays_text() -> None:
    assert inert("[red]x[/red]") == "[red]x[/red]"


def test_a_row_is_as_wide_as_the_terminal() -> None:
    for parts in (["a"], ["名" * 10, "b"], [Span("x" * 30, "head"), "y"], []):
        assert sum(width(span.text) for span in row(parts, 11)) == 11


def test_a_sentence_is_wrapped_at_spaces_and_cut_at_the_last_line() -> None:
    assert wrapped("one two three four", 9, 3) == ["one two", "three", "four"]
    assert wrapped("one two three four five", 9, 2) == ["one two", "three fo~"]
    assert wrapped("x" * 20, 9, 2) == ["x" * 8 + "~"]
