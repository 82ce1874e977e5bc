"""The host names that a server allows."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.server.allowed_hosts import DEFAULT, example_of, is_allowed, with_ports


def test_a_name_without_a_port_is_allowed_with_any_port() -> None:
    assert with_ports(["mlflow", "m.org:443", "*.m.org", "10.*", "mlflow"]) == [
        *("mlflow", "mlflow:*"),
        "m.org:443",
        *("*.m.org", "*.m.org:*"),
        "10.*",
    ]


@pytest.mark.parametrize(
    ("header", "patterns", "allowed"),
    [
        ("mlflow:5000", ("mlflow",), False),  # MLflow compares the whole header
        ("mlflow:5000", ("mlflow:*",), True),
        ("anything", ("*",), True),
        ("localhost:5001", DEFAULT, True),
        ("172.20.0.3:5000", DEFAULT, True),
        ("mlflow:5000", DEFAULT, False),
    ],
)
def test_headers_are_compared_like_mlflow_does(header: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed(header, patterns) is allowed


@pytest.mark.parametrize("pattern", ["mlflow", "mlflow:*", "*.example.org", "10.*", "*"])
def test_an_example_of_a_pattern_matches_it(pattern: str) -> None:
    assert is_allowed(example_of(pattern, 5000), [pattern])
