"""Which models, formats and arguments are accepted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.training.registry.flavors import checked_format, checked_options, flavor_of


def save_model(model: Any, path: str, extra_files: Any = None, **kwargs: Any) -> None:
    """Stands in for `save_model` of an MLflow without formats."""


@pytest.fixture
def flavor() -> Any:
    """A flavor whose MLflow module is this test module."""
    return SimpleNamespace(module=__name__, formats=("pickle", "pt2"))


def test_auto_is_the_first_format(flavor: Any) -> None:
    assert checked_format(flavor, "auto") == "pickle"


def test_an_unknown_format_is_rejected_with_the_list(flavor: Any) -> None:
    with pytest.raises(ValueError, match=r"'auto', 'pickle', 'pt2'.* got 'onnx'"):
        checked_format(flavor, "onnx")


def test_an_mlflow_that_cannot_export_says_so(flavor: Any) -> None:
    with pytest.raises(ValueError, match="requires a newer MLflow 3"):
        checked_format(flavor, "pt2")


def test_arguments_of_save_model_are_accepted(flavor: Any) -> None:
    checked_options(flavor, {"extra_files": []})


@pytest.mark.parametrize("name", ["stages", "model", "path", "kwargs"])
def test_other_arguments_are_rejected(flavor: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected argument {name!r}.*passes on extra_files"):
        checked_options(flavor, {name: 1})


@pytest.mark.parametrize("model", [None, {}, "models:/ships/1", object()])
def test_an_object_that_is_not_a_model_is_rejected_by_its_type(model: object) -> None:
    with pytest.raises(TypeError, match=f"got a builtins.{type(model).__name__}"):
        flavor_of(model)
