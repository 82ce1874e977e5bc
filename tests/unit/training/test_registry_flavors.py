"""Which models, formats and arguments are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.training.registry.flavors import checked_format, checked_options, flavor_of


def save_model(model: Any, path: str, extra_files: Any = None, **kwargs: Any) -> None:
    """Stands for the one of an MLflow that knows no formats."""


@pytest.fixture
def flavor() -> Any:
    """A flavor whose module of MLflow is this one."""
    return SimpleNamespace(module=__name__, formats=("pickle", "pt2"))


def test_auto_is_the_first_format(flavor: Any) -> None:
    assert checked_format(flavor, "auto") == "pickle"


def test_an_unknown_format_is_refused_with_the_list(flavor: Any) -> None:
    with pytest.raises(ValueError, match=r"'onnx'.*'auto', 'pickle', 'pt2'"):
        checked_format(flavor, "onnx")


def test_an_mlflow_that_cannot_export_says_so(flavor: Any) -> None:
    with pytest.raises(ValueError, match="needs a newer MLflow 3"):
        checked_format(flavor, "pt2")


def test_what_save_model_takes_may_be_given(flavor: Any) -> None:
    checked_options(flavor, {"extra_files": []})


@pytest.mark.parametrize("name", ["stages", "model", "path", "kwargs"])
def test_what_it_does_not_take_may_not(flavor: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"no argument {name!r}.*that takes extra_files"):
        checked_options(flavor, {name: 1})


@pytest.mark.parametrize("model", [None, {}, "models:/ships/1", object()])
def test_what_is_no_model_is_refused_by_its_type(model: object) -> None:
    with pytest.raises(TypeError, match=f"not a builtins.{type(model).__name__}"):
        flavor_of(model)
