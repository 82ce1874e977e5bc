"""Remedies install the libraries that are missing, or this very copy, and never the other project of that name."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlflow_sysmetrics.runtime import distribution
from mlflow_sysmetrics.runtime.distribution import (
    distribution_name,
    install_command,
    is_other_project,
    reinstall_command,
)

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


def named(name: str, value: str) -> SimpleNamespace:
    return SimpleNamespace(value=value, dist=SimpleNamespace(name=name))


def test_the_name_is_that_of_the_distribution_with_our_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    those = [named("another-plugin", "plugin:Provider"), named("new-name", "mlflow_sysmetrics.providers:One")]
    monkeypatch.setattr(distribution, "entry_points", lambda **_: those)
    assert distribution_name() == "new-name"


def test_without_metadata_there_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "entry_points", lambda **_: [])
    with pytest.raises(PackageNotFoundError):
        distribution_name()


def test_the_name_of_the_distribution_stands_in_pyproject_alone() -> None:
    """Everything else asks the metadata; elsewhere the same words are the name of the program."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [name] = re.findall(r'^name = "([^"]+)"$', project, re.MULTILINE)
    assert distribution_name() == name
    asked = re.compile(r"\b(?:requires|version|distribution|metadata|files)\(\s*[\"']" + re.escape(name))
    for folder in ("src", "tests", "scripts", "benchmarks", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not asked.search(file.read_text(encoding="utf-8")), file


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
