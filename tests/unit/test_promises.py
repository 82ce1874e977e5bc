"""Each promise of docs/explanation/reliability.md names the tests that hold it, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = "| promise | held by |"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> dict[str, list[tuple[str, str]]]:
    """Returns the tests of each promise."""
    rows = (
        (ROOT / "docs" / "explanation" / "reliability.md")
        .read_text("utf-8")
        .split(f"{HEAD}\n")[1]
        .splitlines()[1:]
    )
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("|")]
    return {promise: TEST.findall(tests) for promise, tests in cells}


@cache
def names(path: str) -> frozenset[str]:
    """Returns the test functions of a file, and the state machines that hypothesis turns into tests."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
        or (isinstance(node, ast.ClassDef) and node.name.endswith("Machine"))
    )


@pytest.mark.parametrize("promise", promises())
def test_the_tests_of_a_promise_exist(promise: str) -> None:
    tests = promises()[promise]
    assert tests
    missing = [
        f"{path}::{name}" for path, name in tests if not (ROOT / path).is_file() or name not in names(path)
    ]
    assert missing == []


def test_there_are_promises() -> None:
    assert len(promises()) > 40
