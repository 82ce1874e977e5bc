"""Remedies install the libraries that are missing, or this very copy, and never the other project of that name."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlflow_sysmetrics.runtime import distribution
from mlflow_sysmetrics.runtime.distribution import install_command, is_other_project, reinstall_command

ROOT = Path(__file__).parents[3]


def absent(*_: object) -> None:
    raise PackageNotFoundError


@pytest.mark.parametrize(
    ("extra", "library"),
    [("cli", "rich"), ("train", "torch"), ("hpo", "optuna"), ("server", "psycopg2-binary")],
)
@pytest.mark.parametrize("is_installed", [True, False])
def test_an_extra_is_installed_by_its_libraries(
    monkeypatch: pytest.MonkeyPatch, extra: str, library: str, is_installed: bool
) -> None:
    if not is_installed:
        monkeypatch.setattr(distribution, "requires", absent)
    command = install_command(extra)
    assert command.startswith("pip install ")
    assert f'"{library}' in command
    assert "mlflow-sysmetrics" not in command


@pytest.mark.parametrize(
    ("recorded", "arguments"),
    [
        ({"url": "file:///src/my%20tree", "dir_info": {}}, "'/src/my tree'"),
        ({"url": "file:///src/tree", "dir_info": {"editable": True}}, "-e /src/tree"),
        ({"url": "file:///dist/a-0.2.0.whl", "archive_info": {}}, "/dist/a-0.2.0.whl"),
        ({"url": "https://host/a.whl", "archive_info": {}}, "https://host/a.whl"),
        (
            {"url": "https://user:pw@host/a.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://host/a.git@abc",
        ),
        (None, "mlflow-sysmetrics==0.2.0"),
        ("broken", "mlflow-sysmetrics==0.2.0"),
    ],
)
def test_a_copy_is_installed_again_from_its_place(
    monkeypatch: pytest.MonkeyPatch, recorded: object, arguments: str
) -> None:
    text = None if recorded is None else "{" if recorded == "broken" else json.dumps(recorded)
    found = SimpleNamespace(version="0.2.0", read_text=lambda _name: text)
    monkeypatch.setattr(distribution, "distribution", lambda _name: found)
    assert reinstall_command() == f"pip install --force-reinstall --no-deps {arguments}"


def test_a_source_tree_that_is_only_importable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "distribution", absent)
    module = ROOT / "src" / "mlflow_sysmetrics" / "runtime" / "distribution.py"
    monkeypatch.setattr(distribution, "__file__", str(module))  # also where a wheel is tested
    assert reinstall_command().endswith(f" {ROOT}")


@pytest.mark.parametrize(
    ("version", "other"),
    [("0.1.0", True), ("0.1.3", True), ("0.1.4", False), ("0.2.0", False), ("1.0", False), ("x", False)],
)
def test_the_other_project_is_known_by_its_version(version: str, other: bool) -> None:
    assert is_other_project(version) is other


@pytest.mark.parametrize("folder", ["src", "scripts"])
def test_no_remedy_installs_the_other_project(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for wrong in (
            "pip install mlflow-sysmetrics",
            'pip install "mlflow-sysmetrics',
            "mlflow-sysmetrics[",
        ):
            assert wrong not in text.replace("``pip install mlflow-sysmetrics``", ""), file
