"""Tables and counts."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.cli.output import counted, print_table


def test_columns_fit_their_widest_cell_and_numbers_are_right_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("RUN", "POINTS"), [("a", "1,200"), ("longer", "-")])
    assert capsys.readouterr().out == "RUN     POINTS\na        1,200\nlonger       -\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 points"), (1, "1 point"), (1200, "1,200 points")])
def test_a_count_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "point") == text
