"""What is released: one version, files that are equal byte for byte, no tests in them, and files that say so."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml

from mlflow_sysmetrics.runtime.distribution import distribution_name

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mlflow_sysmetrics"
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
EPOCH = "1767225600"  # 2026-01-01
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[a-z]*.yml"))


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Returns a function that builds wheel and sdist of a copy whose files have another time.

    The copy has a part of the package, which takes a tenth of the time; .ci/run builds and measures all of it.
    """
    api = pytest.importorskip("poetry.core.masonry.api")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)

    def build(name: str, time: int) -> Path:
        copy, made = tmp_path / name, tmp_path / f"{name}-dist"
        package = copy / "src" / "mlflow_sysmetrics"
        package.mkdir(parents=True)
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, copy)
        for file in (*SOURCE.glob("*.py"), SOURCE / "py.typed", SOURCE / "ruff.toml"):
            shutil.copy(file, package)
        (package / ".ruff_cache").mkdir()
        (package / ".ruff_cache" / "cache").write_text(name)
        for file in copy.rglob("*"):
            os.utime(file, (time, time))
        made.mkdir()
        monkeypatch.chdir(copy)
        api.build_wheel(str(made))
        api.build_sdist(str(made))
        return made

    return build


def test_two_builds_are_equal_and_have_nothing_but_the_package(built: Callable[[str, int], Path]) -> None:
    first, second = built("first", 1_700_000_000), built("second", 1_750_000_000)
    names = sorted(file.name for file in first.iterdir())
    assert len(names) == 2
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    [wheel], [sdist] = first.glob("*.whl"), first.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        members = archive.namelist()
    with tarfile.open(sdist) as packed:
        members += packed.getnames()
    assert "mlflow_sysmetrics/py.typed" in members
    assert not [name for name in members if "ruff" in name or "/tests" in name]


def test_the_version_stands_in_one_place_and_has_a_dated_part_of_the_changelog() -> None:
    [version] = re.findall(r'^version = "([^"]+)"$', PROJECT, re.MULTILINE)
    dated = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", CHANGELOG, re.MULTILINE)
    assert dated[0] == version
    assert CHANGELOG.count("## [Unreleased]") == 1
    for file in (ROOT / "src").rglob("*.py"):
        assert f'"{version}"' not in file.read_text(encoding="utf-8"), file
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_may_do_nothing_unless_it_says_so(file: Path) -> None:
    workflow = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all("@" in step["uses"] for step in steps if "uses" in step)
    scripts = {
        name for step in steps for name in re.findall(r"scripts/\w+\.py|\.ci/run", step.get("run", ""))
    }
    assert all((ROOT / name).is_file() for name in scripts)
    assert "secrets." not in file.read_text(encoding="utf-8")


def test_nothing_is_published_until_the_repository_says_so() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    assert jobs["publish"]["if"] == "vars.PUBLISH_TO_INDEX == 'true'"
    assert jobs["site"]["if"] == "vars.PUBLISH_SITE == 'true'"


@pytest.mark.parametrize("file", [form for form in FORMS if form.name != "config.yml"], ids=lambda f: f.name)
def test_a_form_has_what_github_wants(file: Path) -> None:
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = form["body"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)


def test_the_recipe_has_what_pyproject_has() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_recipe.py"))["recipe"](PROJECT, "a-1.tar.gz", "0" * 64)
    recipe = yaml.safe_load(made)
    assert recipe["context"]["name"] == distribution_name()
    assert (
        "mlflow-sysmetrics = mlflow_sysmetrics.cli.__main__:run" in recipe["build"]["python"]["entry_points"]
    )
    run = {one.partition(" ")[0] for one in recipe["requirements"]["run"]} - {"python"}
    required = requires(distribution_name()) or []
    assert run == {re.split(r"[^\w-]", one)[0] for one in required if "extra ==" not in one}
