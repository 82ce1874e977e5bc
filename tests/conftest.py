"""What all tests share: the two suites as markers, a clean environment, and `--bless`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite tests/hosts/**/*.txt that a test compares with"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the folder of the other suite when one suite is asked for: importing it takes seconds."""
    other = {"unit": "integration", "integration": "unit"}.get(config.option.markexpr)
    return True if other is not None and collection_path == TESTS / other else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test with the suite whose folder it lies in; exhaustive ones are a suite of their own."""
    for item in items:
        suite = item.path.relative_to(TESTS).parts[0]
        if suite != "unit" or item.get_closest_marker("exhaustive") is None:
            item.add_marker(getattr(pytest.mark, suite))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leaves no MLflow variable of the developer's shell in force, and no store but the test's own."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_", "CUDA_", "NVIDIA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where journals are: not the developer's
    monkeypatch.chdir(tmp_path)
