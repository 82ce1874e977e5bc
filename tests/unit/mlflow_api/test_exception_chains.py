"""The chain below an exception, and the requests in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.mlflow_api import secrets
from mlflow_sysmetrics.mlflow_api.secrets import chain_of, cleaned, remember_requests


def test_the_first_exception_lies_below_all_layers() -> None:
    bottom, middle, top = ConnectionRefusedError(), ValueError(), RuntimeError()
    top.__cause__, middle.__context__ = middle, bottom
    assert list(chain_of(top)) == [top, middle, bottom]


def test_exceptions_are_followed_as_requests_and_urllib3_nest_them() -> None:
    bottom, middle = ConnectionRefusedError(), ValueError()
    middle.reason = bottom  # type: ignore[attr-defined]
    top = RuntimeError(middle)
    assert list(chain_of(top)) == [top, middle, bottom]


def test_an_exception_without_a_cause_is_its_own_root() -> None:
    alone = ValueError()
    assert list(chain_of(alone)) == [alone]


def test_a_circular_chain_of_causes_ends() -> None:
    one, other = ValueError(), ValueError()
    one.__context__, other.__context__ = other, one
    assert list(chain_of(one)) == [one, other]


def test_the_headers_behind_an_exception_of_mlflow_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow raises it from a function whose local variable holds the response."""
    monkeypatch.setattr(secrets, "_sent", {})

    module: dict[str, Any] = {"__name__": "mlflow.utils.rest_utils"}
    exec("def verify(response):\n    raise RuntimeError('the server says: unknown key-of-ships')", module)
    response = SimpleNamespace(request=SimpleNamespace(headers={"X-Team-Key": "key-of-ships"}))
    with pytest.raises(RuntimeError) as raised:
        module["verify"](response)
    remember_requests(raised.value)
    assert cleaned("unknown key-of-ships") == "unknown ***"
