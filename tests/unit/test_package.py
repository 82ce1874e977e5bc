"""The package itself: what importing it costs, which names it offers, who may import whom."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pickle
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import mlflow_sysmetrics
from mlflow_sysmetrics import errors
from syntax_trees import SOURCE, nodes, syntax_trees

PUBLIC_MODULES = ("daemon", "exports", "preflight", "server", "training")
TOP_LEVEL = {
    "LocalServer",
    "MetricRecorder",
    "OptunaRunner",
    "Settings",
    "SysMetricsDaemonRunContextProvider",
    "SysMetricsError",
    "SysMetricsRunContextProvider",
    "SystemMetricsLogger",
    "Trainer",
    "attach",
    "flush",
    "preflight",
    "promote",
    "register_model",
    "snapshot",
    "start_node_sampler",
    "status",
    "tracked_run",
}
# Raised and caught within the package; no public function raises them.
INTERNAL_ERRORS = {
    "BatchTooLarge",
    "DeliveryError",
    "JournalUnavailable",
    "ThreadUnavailable",
    "NotAllowed",
    "RunDeleted",
    "RunRefused",
    "ServerUnreachable",
    "Unavailable",
}


def public_errors() -> set[str]:
    found = {name for name, _ in inspect.getmembers(errors, inspect.isclass) if not name.startswith("_")}
    of_package = {name for name in found if getattr(errors, name).__module__ == errors.__name__}
    exceptions = {name for name in of_package if issubclass(getattr(errors, name), Exception)}
    return exceptions - INTERNAL_ERRORS


def exported(module: str) -> list[str]:
    """Returns `__all__` of a package of ours, without importing it."""
    tree = ast.parse((SOURCE / module / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    assert isinstance(names, list)
    return names


def test_the_top_level_has_exactly_the_names_of_the_readme() -> None:
    assert set(mlflow_sysmetrics.__all__) == TOP_LEVEL


def test_every_public_name_is_importable_and_documented() -> None:
    for name in mlflow_sysmetrics.__all__:
        assert getattr(mlflow_sysmetrics, name).__doc__
    assert dir(mlflow_sysmetrics) == sorted(mlflow_sysmetrics.__all__)


def test_the_typed_list_has_every_public_name() -> None:
    """Checked by mypy, tests/typing/public_names.py shows that these names have types."""
    tree = ast.parse((SOURCE.parents[1] / "tests/typing/public_names.py").read_text(encoding="utf-8"))
    typed = {
        str(node.module): {alias.name for alias in node.names}
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
    }
    package = mlflow_sysmetrics.__name__
    assert typed[package] == TOP_LEVEL
    assert typed[f"{package}.errors"] == public_errors() - TOP_LEVEL
    for module in PUBLIC_MODULES:
        assert set(exported(module)) - typed[f"{package}.{module}"] <= TOP_LEVEL | {"ServerStartError"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mlflow_sysmetrics.nothing


def documented_errors() -> set[str]:
    """Returns the names in the "Raises:" sections of public functions, and of public classes' methods."""
    public = TOP_LEVEL.union(*(exported(module) for module in PUBLIC_MODULES))
    found: set[str] = set()
    for tree in syntax_trees().values():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public:
                found.update(*(re.findall(r"(\w+): ", section) for section in _raises_sections(node)))
    return found


def _raises_sections(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    for one in [node, *methods] if isinstance(node, ast.ClassDef) else [node]:
        doc = inspect.cleandoc(ast.get_docstring(one) or "")
        yield from re.findall(r"^Raises:\n((?: +.*\n?)+)", doc, re.MULTILINE)


def test_every_public_error_is_raised_by_a_public_function() -> None:
    bases = {"SysMetricsError"}  # raised as one of its subclasses only
    assert public_errors() - documented_errors() - bases == set()


def test_every_error_is_used() -> None:
    used: set[str] = set()
    for path, tree in syntax_trees().items():
        if path.name == "errors.py":
            used |= {
                ast.unparse(base) for one in tree.body if isinstance(one, ast.ClassDef) for base in one.bases
            }
        else:
            used |= {one.id for one in nodes(tree) if isinstance(one, ast.Name)}
    assert public_errors() - used == set()


@pytest.mark.heavy
def test_importing_starts_nothing_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, threading, mlflow_sysmetrics, mlflow_sysmetrics.daemon;"
        "from mlflow_sysmetrics import MetricRecorder, SystemMetricsLogger;"
        "heavy = {'mlflow', 'pynvml', 'torch', 'pandas', 'numpy', 'requests', 'optuna', 'ignite'} & set(sys.modules);"
        "assert not heavy, heavy; assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


IMPORTS = [
    "from mlflow_sysmetrics import preflight",
    "import mlflow_sysmetrics; preflight = mlflow_sysmetrics.preflight",
    "import mlflow_sysmetrics.preflight; preflight = mlflow_sysmetrics.preflight",
    "import mlflow_sysmetrics.preflight as preflight",
    "from mlflow_sysmetrics.preflight import preflight",
    "from importlib import import_module; preflight = import_module('mlflow_sysmetrics.preflight')",
    "import mlflow_sysmetrics.preflight.api; from mlflow_sysmetrics import preflight",
    "from mlflow_sysmetrics import tracked_run, preflight",
]
CALLS_AND_PICKLES = """
import inspect, pickle
from mlflow_sysmetrics.errors import SettingsError
assert callable(preflight)
assert next(iter(inspect.signature(preflight).parameters)) == "experiment_name"
try:
    preflight(max_retries=0)
except SettingsError as error:
    assert str(error).startswith("max_retries must be "), error
else:
    raise AssertionError("it was not called")
assert pickle.loads(pickle.dumps(preflight)) is preflight
"""


@pytest.mark.heavy
def test_preflight_is_callable_after_any_order_of_imports() -> None:
    """The package and the function share their name, so either may be found under it."""
    in_children = f"""
import os, sys
for line in {IMPORTS!r}:
    pid = os.fork()
    if pid == 0:
        names = {{}}
        exec(line, names)
        exec({CALLS_AND_PICKLES!r}, names)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, line
"""
    in_one = "\n".join(f"exec({line!r}); exec({CALLS_AND_PICKLES!r})" for line in IMPORTS)
    script = in_children + in_one if hasattr(os, "fork") else in_one
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_preflight_has_the_signature_and_the_help_of_the_function() -> None:
    from mlflow_sysmetrics.preflight.api import preflight as function

    package = mlflow_sysmetrics.preflight
    assert isinstance(package, ModuleType)
    assert inspect.signature(package) == inspect.signature(function)
    shown = pydoc.plain(pydoc.render_doc(package))
    assert "status_path" in shown
    assert "Starts a run and returns once it has been written to and read back." in shown


def test_preflight_can_be_pickled_as_the_package_and_as_the_function() -> None:
    from mlflow_sysmetrics.preflight import preflight as function

    package = mlflow_sysmetrics.preflight
    assert pickle.loads(pickle.dumps(package)) is package
    assert pickle.loads(pickle.dumps(function)) is function


def test_the_classes_of_the_entry_points_are_importable_from_the_package() -> None:
    from importlib.metadata import entry_points

    found = {
        one.value.partition(":")[2]
        for one in entry_points(group="mlflow.run_context_provider")
        if one.value.startswith("mlflow_sysmetrics")
    }
    assert found == {"SysMetricsDaemonRunContextProvider", "SysMetricsRunContextProvider"}
    assert found <= TOP_LEVEL


UPHILL_IMPORTS = [
    ("collectors/probe.py", "import mlflow"),
    ("collectors/probe.py", "from mlflow_sysmetrics.daemon import attach"),
    ("collectors/probe.py", "import subprocess"),
    ("facts/probe.py", "from mlflow_sysmetrics import collectors"),
    ("facts/probe.py", "import mlflow.tracking"),
    ("facts/probe.py", "import subprocess"),
    ("daemon/probe.py", "from mlflow_sysmetrics.providers import SysMetricsRunContextProvider"),
    ("daemon/probe.py", "import mlflow"),
    ("daemon/probe.py", "import pynvml"),
    ("cli/probe.py", "import mlflow"),
    ("cli/probe.py", "from mlflow_sysmetrics.monitor import install"),
    ("samples.py", "from mlflow_sysmetrics.daemon import attach"),
    ("settings.py", "import mlflow_sysmetrics.collectors"),
    ("machine/host.py", "from mlflow import start_run"),
    ("training/probe.py", "from mlflow_sysmetrics.cli import check"),
    ("training/probe.py", "from mlflow_sysmetrics.monitor import install"),
    ("training/probe.py", "import subprocess"),
    ("daemon/probe.py", "from mlflow_sysmetrics.training import recorder"),
    ("preflight/probe.py", "from mlflow_sysmetrics.training import recorder"),
    ("preflight/probe.py", "from mlflow_sysmetrics.daemon import attach"),
    ("mlflow_api/probe.py", "from mlflow_sysmetrics.preflight import preflight"),
    ("mlflow_api/probe.py", "from mlflow_sysmetrics.collectors import COLLECTORS"),
    ("machine/probe.py", "from mlflow_sysmetrics.facts import host_facts"),
    ("runtime/probe.py", "import mlflow"),
    ("server/probe.py", "from mlflow_sysmetrics.training import recorder"),
]


def test_lint_holds_the_floors_apart(tmp_path: Path) -> None:
    """An uphill import is a lint error on every floor: checked with one call for a copy of the configuration."""
    root = SOURCE.parents[1]
    for config in [root / "pyproject.toml", *SOURCE.rglob("ruff.toml")]:
        copy = tmp_path / config.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(config.read_bytes())
    copied = tmp_path / SOURCE.relative_to(root)
    lines: dict[str, list[str]] = {}
    for file, line in UPHILL_IMPORTS:
        lines.setdefault(file, []).append(line)
    for file, text in lines.items():
        (copied / file).write_text("".join(f"{line}\n" for line in text))
    ruff = [sys.executable, "-m", "ruff", "check", "--select=TID251", "--no-cache", "--output-format=json"]
    done = subprocess.run([*ruff, str(copied)], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found = {
        (Path(one["filename"]).relative_to(copied).as_posix(), one["location"]["row"])
        for one in json.loads(done.stdout)
        if one["code"] == "TID251"
    }
    missed = [
        f"{file}: {line}"
        for file, text in lines.items()
        for row, line in enumerate(text, 1)
        if (file, row) not in found
    ]
    assert missed == []


@pytest.mark.parametrize(
    ("package", "vulnerable"),
    [
        ("filelock", "3.20.0"),  # CVE-2025-68146
        ("torch", "2.5.1"),  # CVE-2025-32434
        ("torch", "2.9.1"),  # CVE-2026-24747
        ("tqdm", "4.66.2"),  # CVE-2024-34062
        ("psycopg2-binary", "2.9.10"),  # bundles a libpq with CVE-2025-1094
        ("keras", "3.8.0"),  # CVE-2025-1550
        ("lightning", "2.3.2"),  # CVE-2024-5452
        ("lightning", "2.6.3"),  # published by an attacker
        ("transformers", "4.47.1"),  # CVE-2024-11393
        ("PyYAML", "5.3.1"),  # CVE-2020-14343
        ("psutil", "5.6.5"),  # CVE-2019-18874
    ],
)
def test_no_floor_allows_a_version_with_a_known_hole(package: str, vulnerable: str) -> None:
    declared = re.findall(
        rf'"({package}[<>=][^"]*)"', (SOURCE.parents[1] / "pyproject.toml").read_text("utf-8")
    )
    assert declared
    assert not [one for one in map(Requirement, declared) if one.specifier.contains(vulnerable)]


def test_authors_of_collectors_have_a_public_name_for_the_host() -> None:
    public = importlib.import_module("mlflow_sysmetrics.host")
    private = {
        "mlflow_sysmetrics.machine.host": ("DiskUsage", "Host"),
        "mlflow_sysmetrics.machine.kept_files": ("KeptFile", "read_bytes", "read_short"),
    }
    assert {name: getattr(public, name) for name in public.__all__} == {
        name: getattr(importlib.import_module(module), name)
        for module, names in private.items()
        for name in names
    }


def test_the_example_for_authors_of_collectors_runs(tmp_path: Path) -> None:
    text = inspect.getdoc(importlib.import_module("mlflow_sysmetrics.host")) or ""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ") or not line]
    exec("\n".join(lines), {"tmp_path": tmp_path})


def test_the_changelog_has_the_version_and_its_date() -> None:
    root = SOURCE.parents[1]
    version = re.search(
        r'^version = "(.+)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert headings[0] == "[Unreleased]"
    newest = re.fullmatch(r"\[(.+)\] - (\d{4}-\d\d-\d\d)", headings[1])
    assert newest is not None
    assert newest[1] == version[1]
    assert date.fromisoformat(newest[2]) >= date(2026, 11, 30)
