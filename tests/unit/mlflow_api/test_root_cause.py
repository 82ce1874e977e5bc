"""The bottom of an exception."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.mlflow_api.classification import root_cause

pytestmark = pytest.mark.unit


def test_it_lies_below_all_layers() -> None:
    bottom, middle, top = ConnectionRefusedError(), ValueError(), RuntimeError()
    top.__cause__, middle.__context__ = middle, bottom
    assert root_cause(top) is bottom


def test_an_exception_of_its_own_is_its_root() -> None:
    alone = ValueError()
    assert root_cause(alone) is alone


def test_a_circle_comes_to_an_end() -> None:
    one, other = ValueError(), ValueError()
    one.__context__, other.__context__ = other, one
    assert root_cause(one) is other
