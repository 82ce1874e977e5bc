"""docs/how_to/report.md has the figures and the rules of the code; ``--bless`` rewrites them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.summary.amounts import LABELS
from mlflow_sysmetrics.summary.rules import RULES
from mlflow_sysmetrics.summary.summary import FIGURES, PREFIX

DOCUMENT = Path(__file__).parents[3] / "docs" / "how_to" / "report.md"
FIGURE_ROWS = (
    f"| metric `{PREFIX}...` | label | meaning |",
    "|---|---|---|",
    *(f"| `{one.name}` | {LABELS[one.name]} | {one.meaning} |" for one in FIGURES),
)
RULE_ROWS = (
    "| verdict | looks at | thresholds | source |",
    "|---|---|---|---|",
    *(
        f"| `{rule.name}` | {rule.inputs} | "
        f"{', '.join(f'{name} {value:g}' for name, value in rule.thresholds.items())} | [source]({rule.source}) |"
        for rule in RULES
    ),
)


@pytest.mark.parametrize(("name", "rows"), [("figures", FIGURE_ROWS), ("rules", RULE_ROWS)])
def test_the_document_has_what_the_code_has(
    name: str, rows: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = page.partition(f"<!-- {name}: ")
    comment, _, rest = rest.partition("\n")
    _, end, after = rest.partition(f"<!-- end of {name}")
    expected = "".join([before, begin, comment, "\n", "\n".join(rows), "\n", end, after])
    if request.config.getoption("--bless"):
        DOCUMENT.write_text(page := expected, encoding="utf-8")
    assert page == expected, "docs/how_to/report.md differs from the code: rewrite it with --bless"


def test_every_figure_has_a_label() -> None:
    assert set(LABELS) == {one.name for one in FIGURES}
