"""The floors of the house, over the real imports: also those inside functions and for types only."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from syntax_trees import nodes, syntax_trees

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 cannot read TOML")

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "mlflow_sysmetrics"
# From the ground up; a floor imports only the floors below it, and a package its own modules.
FLOORS = (
    ("errors", "interruptions", "samples"),
    ("choices", "log"),
    ("settings",),
    ("machine", "runtime"),
    ("collectors", "facts", "mlflow_api"),
    ("exports", "summary"),
    ("daemon", "preflight"),
    ("cluster",),
    ("monitor", "report", "server", "training"),
    ("live", "providers"),
    ("cli", "examples", "host"),
)
RANK = {name: rank for rank, floor in enumerate(FLOORS) for name in floor}
# Without the packages that are counted apart: they stand beside the rest, and few readers need both.
MOST_FILES = 300
COUNTED_APART = ("cluster", "exports", "live", "report", "summary")
MOST_LINES = 400
MOST_LOOSE_MODULES = 10


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    """Returns the file of every module of ours."""
    found = {}
    for path in (SOURCE / PACKAGE).rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@lru_cache(maxsize=1)
def imported() -> dict[str, frozenset[str]]:
    """Returns what each module imports, ours and others', by the name of the module that has it."""
    return {name: frozenset(_imports_of(path)) for name, path in modules().items()}


def _imports_of(path: Path) -> Iterator[str]:
    for node in nodes(syntax_trees()[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules() else str(node.module)


def ours(name: str) -> set[str]:
    """Returns the modules of ours that a module imports."""
    return {one for one in imported()[name] if one in modules()} - {name}


def home(name: str) -> str:
    """Returns the package or loose module directly below ours that a module belongs to; "" for ours itself."""
    return name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def tables() -> dict[str, set[str]]:
    """Returns which of our packages each banned-api table below src bans; others inherit one by `extend`."""
    found = {}
    for path in (SOURCE / PACKAGE).rglob("ruff.toml"):
        with path.open("rb") as file:
            lint = tomllib.load(file).get("lint", {})
        banned = lint.get("flake8-tidy-imports", {}).get("banned-api", {})
        where = path.parent.relative_to(SOURCE / PACKAGE).as_posix()
        if banned:
            found[where] = {home(name) for name in banned if name.startswith(f"{PACKAGE}.")}
    return found


def test_every_package_and_loose_module_has_a_floor() -> None:
    assert {home(name) for name in modules()} - {""} == set(RANK)


def test_no_import_is_uphill() -> None:
    uphill = [
        f"{name} -> {other}"
        for name in modules()
        for other in ours(name)
        if name != PACKAGE and home(other) != home(name)
        if other == PACKAGE or RANK[home(other)] >= RANK[home(name)]
    ]
    assert uphill == []


def test_no_modules_import_each_other() -> None:
    """Not even through others, inside functions or for types only."""
    left = {name: ours(name) for name in modules()}
    while True:
        needed_by_some = set().union(*left.values())
        kept = {
            name: needed & left.keys()
            for name, needed in left.items()
            if needed & left.keys() and name in needed_by_some
        }
        if kept.keys() == left.keys():
            break
        left = kept
    assert left == {}  # what is left imports each other


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("mlflow", r"mlflow_api|training|examples"),
        ("subprocess", r"machine\.command|server\.superv\w+"),
        ("pynvml", r"machine\.host"),
    ],
)
def test_a_library_has_one_door(library: str, allowed: str) -> None:
    elsewhere = [
        name
        for name in modules()
        if any(one.partition(".")[0] == library for one in imported()[name])
        if not re.match(rf"({PACKAGE}\.)({allowed})(\.|$)", name)
    ]
    assert elsewhere == []


def test_names_for_others_are_not_used_here() -> None:
    assert [name for name in modules() if f"{PACKAGE}.host" in imported()[name]] == []


def test_lint_tables_ban_floors_that_exist() -> None:
    assert {where: banned - set(RANK) for where, banned in tables().items() if banned - set(RANK)} == {}


def test_lint_tables_ban_every_other_floor_that_is_not_below() -> None:
    missing = {}
    for where, banned in tables().items():
        own = where.partition("/")[0]
        rank = 0 if own == "." else RANK[own]
        required = {name for name in RANK if RANK[name] >= rank and name != own}
        if own == ".":  # the loose modules of the ground floor import each other
            required -= {"choices", "errors", "interruptions", "log", "samples", "settings"}
        if required - banned:
            missing[where] = sorted(required - banned)
    assert missing == {}


def test_every_package_has_a_lint_table() -> None:
    packages = {name for name in RANK if f"{PACKAGE}.{name}" in modules() and _is_package(name)}
    assert packages <= tables().keys()


def _is_package(name: str) -> bool:
    return modules()[f"{PACKAGE}.{name}"].name == "__init__.py"


def test_the_house_stays_small() -> None:
    house = [name for name in modules() if home(name) not in COUNTED_APART]
    assert len(house) <= MOST_FILES


def test_no_file_is_long() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_few_modules_are_loose() -> None:
    loose = [name for name in RANK if not _is_package(name)]
    assert len(loose) <= MOST_LOOSE_MODULES
