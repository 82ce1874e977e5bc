"""README.md is short, shows what it sells, and rests each cell of its comparison on evidence."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COST = (ROOT / "docs" / "explanation" / "cost.md").read_text(encoding="utf-8")
EVIDENCE = (ROOT / "docs" / "explanation" / "comparison.md").read_text(encoding="utf-8")
COLUMNS = ("MLflow alone", "W&B", "this")
UNKNOWN = "not measured"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
BENCHMARK = re.compile(r"`(benchmarks/\w+\.py)`: (\d+)")
SOURCE = re.compile(r"\[[^\]]+\]\(https://[^)\s]+\), (20\d\d-\d\d-\d\d)")
MOST_LINES = 150
FIRST_SCREEN = 8  # lines
absolute = runpy.run_path(str(ROOT / "scripts" / "absolute_links.py"))["absolute"]


def table(text: str) -> dict[str, dict[str, str]]:
    """Returns the cells of the comparison, by row and column."""
    head, _, *rows = re.split(r"\n\n", text[text.index(f"| {' | '.join(COLUMNS)} |") :])[0].splitlines()
    assert [cell.strip() for cell in head.strip("|").split(" | ")][-3:] == list(COLUMNS)
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return {name: dict(zip(COLUMNS, rest, strict=True)) for name, *rest in cells}


SAID, SHOWN = table(README), table(EVIDENCE)


def test_it_is_read_in_a_minute() -> None:
    lines = README.splitlines()
    assert len(lines) <= MOST_LINES
    assert any(line.startswith("![") for line in lines[:FIRST_SCREEN])


def test_the_comparison_has_ten_rows_and_their_evidence() -> None:
    assert len(SAID) == 10
    assert list(SAID) == list(SHOWN)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", SAID)
def test_each_cell_rests_on_a_test_a_benchmark_or_a_dated_source(row: str, column: str) -> None:
    said, shown = SAID[row][column], SHOWN[row][column]
    if UNKNOWN in (said, shown):
        assert said == shown
        return
    tests, benchmarks, sources = TEST.findall(shown), BENCHMARK.findall(shown), SOURCE.findall(shown)
    assert tests or benchmarks or sources
    for path, name in tests:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), (path, name)
    for path, figure in benchmarks:
        assert (ROOT / path).is_file()
        assert f"| {figure} |" in COST
        words = {"4": "four"}
        assert figure in said.split() or words.get(figure, figure) in said.split()


def test_ours_is_never_only_said() -> None:
    assert all(TEST.search(row["this"]) or BENCHMARK.search(row["this"]) for row in SHOWN.values())


def test_links_become_absolute_for_the_index() -> None:
    made = absolute(README, "https://example.org/team/project", "v1.0")
    targets = re.findall(r"\]\(([^)\s]+)\)", made)
    assert all(target.startswith("https://") for target in targets)
    assert "](https://example.org/team/project/raw/v1.0/assets/three_views.png)" in made
    assert "](https://example.org/team/project/blob/v1.0/docs/how_to/install.md)" in made
    assert absolute(made, "https://example.org/other", "v2") == made


def test_nothing_tells_to_install_by_name() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    by_name = re.compile(
        r"(?:pip|uv|poetry|pipx|conda|mamba) (?:install|add) [^`\n|]*mlflow-sysmetrics|mlflow-sysmetrics\["
    )
    found = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if by_name.search(line)
        and not line.startswith("| `pip install mlflow-sysmetrics`")  # of 0.1.3
        and "uninstall" not in line
    ]
    assert found == []
