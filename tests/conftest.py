"""What all tests share: the two suites as markers, a clean environment, and `--bless`."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Unit tests that take so long that `-m unit` leaves them out; the whole suite runs them.
LONG = ("heavy", "exhaustive")
LONG_MODULE = re.compile(rf"^pytestmark = pytest\.mark\.({'|'.join(LONG)})$", re.MULTILINE)

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite tests/hosts/**/*.txt that a test compares with"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Imports nothing that `-m unit` or `-m integration` would deselect as a whole: it takes seconds."""
    asked = config.option.markexpr
    if collection_path == TESTS / "containers":  # needs Docker: only `-m containers`, or the folder itself
        return None if asked == "containers" else True
    other = {"unit": "integration", "integration": "unit"}.get(asked)
    if other is not None and collection_path == TESTS / other:
        return True
    if asked == "unit" and collection_path.match("test_*.py"):
        return True if LONG_MODULE.search(collection_path.read_text(encoding="utf-8")) else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test with the suite whose folder it lies in, except for long unit tests."""
    for item in items:
        suite = item.path.relative_to(TESTS).parts[0]
        if suite != "unit" or not any(item.get_closest_marker(name) for name in LONG):
            item.add_marker(getattr(pytest.mark, suite))


def pytest_collection() -> None:
    """Collects no garbage while modules and tests are made, which stay until the end."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Excludes the modules and the tests from every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def _empty_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty", numbered=False)


@pytest.fixture(autouse=True)
def clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _empty_directory: Path
) -> Iterator[None]:
    """Removes the MLflow variables of the developer's shell, and keeps every store within the test's directory.

    Unit tests that do not ask for `tmp_path` share an empty directory: creating one for each takes longer than
    most of them. It is emptied after a test that wrote there. Each test has its own directory for journals, which
    threads of an earlier test may still write to.
    """
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_", "CUDA_", "NVIDIA_"))]:
        monkeypatch.delenv(name)
    shared = request.path.is_relative_to(TESTS / "unit") and "tmp_path" not in request.fixturenames
    directory = _empty_directory if shared else request.getfixturevalue("tmp_path")
    state = _empty_directory.with_name(f"state-{next(_numbers)}") if shared else directory / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))  # where journals are: not the developer's
    monkeypatch.chdir(directory)
    yield
    if shared and os.listdir(directory):
        shutil.rmtree(directory)
        directory.mkdir()
