"""The reference has every command, setting, metric, tag and public name of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import mlflow_sysmetrics
from mlflow_sysmetrics import settings
from mlflow_sysmetrics.cli import main
from recorded import LINUX, PORTABLE

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "mlflow_sysmetrics"
SETTING = re.compile(r"MLFLOW_SYSMETRICS_[A-Z_]+")
TAG = re.compile(r"(?:sys|sysmetrics)\.[a-z_]+")
NOT_TAGS = {"sys.executable", "sys.modules", "sys.path"}  # of the module, in messages


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@cache
def literals() -> frozenset[str]:
    """Returns all texts in the code, without docstrings."""
    return frozenset(text for file in SOURCE.rglob("*.py") for text in texts_of(file))


def texts_of(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def commands(group: click.Group, name: str) -> Iterator[str]:
    context = click.Context(group)
    for one in group.list_commands(context):
        command = group.get_command(context, one)
        assert command is not None
        assert not command.hidden
        yield f"{name} {one}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {one}")


def test_the_page_of_commands_is_made_of_the_whole_program() -> None:
    directive = page("commands.md").partition("::: mkdocs-click\n")[2]
    options = dict(re.findall(r"^    :(\w+): (.+)$", directive, re.MULTILINE))
    assert (options["module"], options["command"]) == ("mlflow_sysmetrics.cli", "main")
    assert isinstance(main, click.Group)
    assert len(list(commands(main, "mlflow-sysmetrics"))) > 9


def test_every_command_has_its_exit_codes() -> None:
    text = page("command_line.md")
    alone = [one for one in commands(main, "mlflow-sysmetrics") if one != "mlflow-sysmetrics server"]
    assert [one for one in alone if f"| `{one}` |" not in text] == []


@pytest.mark.parametrize("name", mlflow_sysmetrics.__all__)
def test_every_public_name_is_described(name: str) -> None:
    assert f"\n::: mlflow_sysmetrics.{name}\n" in page("python_api.md")


def test_every_setting_is_explained() -> None:
    names = {value for value in vars(settings).values() if isinstance(value, str) and value[:7] == "MLFLOW_"}
    names |= {text for text in literals() if SETTING.fullmatch(text)}
    assert len(names) > 20
    assert sorted(name for name in names if f"| `{name}` |" not in page("settings.md")) == []


def test_every_tag_is_explained() -> None:
    tags = {text for text in literals() if TAG.fullmatch(text)} - NOT_TAGS
    assert len(tags) > 25
    assert sorted(tag for tag in tags if f"| `{tag}` |" not in page("tags.md")) == []


def test_every_metric_is_in_the_short_table() -> None:
    text = page("what_is_collected.md")
    metrics = {metric.name for collector in (*LINUX, *PORTABLE) for metric in collector.metrics}
    assert sorted(name for name in metrics if f"`{name}`" not in text) == []
