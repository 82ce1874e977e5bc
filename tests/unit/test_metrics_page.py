"""The page of all metrics matches the code, and contains every metric."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.samples import OPT_IN, Family
from recorded import LINUX, PORTABLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"
SCRIPT = ROOT / "scripts" / "make_metrics_page.py"

COLLECTORS = dict.fromkeys((*LINUX, *PORTABLE))
METRICS = sorted({metric.name for collector in COLLECTORS for metric in collector.metrics})


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(generator: dict[str, Any], page: str) -> None:
    same = generator["page"]() == page
    assert same, "docs/reference/metrics.md is out of date; run: python scripts/make_metrics_page.py"


def test_every_metric_has_one_row(generator: dict[str, Any]) -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| [^|]+ \| (?:gauge|rate|counter|events) \|", generator["page"](), re.MULTILINE
    )
    assert sorted(rows) == METRICS


def test_every_collector_has_one_section(generator: dict[str, Any]) -> None:
    sections = re.findall(r"^### Source: (\w+)$", generator["page"](), re.MULTILINE)
    assert sorted(sections) == sorted(collector.__name__ for collector in COLLECTORS)


def test_every_row_has_as_many_cells_as_its_heading(generator: dict[str, Any]) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", generator["page"](), re.MULTILINE)
    cells = [{len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()} for block in blocks]
    assert all(len(counts) == 1 for counts in cells)


def test_every_link_leads_to_a_heading(generator: dict[str, Any]) -> None:
    page = generator["page"]()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    # As GitHub does: lower case, no punctuation, a hyphen for each space.
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert links
    assert links <= anchors


def test_a_collector_that_no_real_machine_has_confirmed_is_experimental(generator: dict[str, Any]) -> None:
    page = generator["page"]()
    listed = re.findall(r"^- \[(\w+)\]\(#source-\w+\): only tested with", page, re.MULTILINE)
    assert {"AmdLinux", "EnergyLinux", "TorchAllocator"} <= set(listed)
    for name in listed:
        section = page.partition(f"### Source: {name}\n")[2].partition("\n### ")[0]
        assert "experimental on" in section


def test_a_docstring_is_split_into_its_summary_and_the_text_of_each_label(
    generator: dict[str, Any],
) -> None:
    text = "Time: lost\nto waiting.\n\nSource:  a file: its\n         first line.\nCheck:   cat file\n"
    assert generator["parse_docstring"](text) == (
        "Time: lost to waiting.",
        {"Source": "a file: its first line.", "Check": "cat file"},
    )


def test_a_wildcard_a_placeholder_and_a_pipe_are_escaped(generator: dict[str, Any]) -> None:
    assert generator["_prose"]("/sys/*/<port>/_x a_b | `a*b`") == r"/sys/\*/\<port>/\_x a_b \| `a*b`"


def test_a_metric_and_a_variable_in_prose_are_code(generator: dict[str, Any]) -> None:
    assert generator["_prose"]("as disk_{name}_usage_megabytes, MLFLOW_SYSMETRICS_DISKS") == (
        "as `disk_{name}_usage_megabytes`, `MLFLOW_SYSMETRICS_DISKS`"
    )


def test_an_ordinary_node_has_at_most_26_series() -> None:
    linux = {metric for collector in LINUX for metric in collector.metrics}
    ordinary = [one for one in linux if not one.only and one.family not in {*OPT_IN, Family.GPU}]
    assert len(ordinary) <= 26
