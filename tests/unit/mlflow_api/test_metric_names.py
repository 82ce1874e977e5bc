"""Metric names: exactly those that the installed MLflow accepts."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils import validation

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name, refusal
from mlflow_sysmetrics.settings import Settings

NAMES = [
    *(
        "loss",
        "train/loss_step",
        "a b",
        "f1.macro",
        "f1-macro",
        "précision",
        "損失",
        "a:b",
        "n" * 250,
        " ",
        "..a",
    ),
    *(
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/./b",
        "val/../x",
        "a@b",
        "a(b)",
        "a\\b",
        "a%",
        "e\u0301",
        "n" * 251,
    ),
    *("a\n", "a\nb", "\0", "\udc80", "emoji 🎉", "a\tb"),
]


@pytest.fixture(autouse=True)
def _uncached() -> None:
    refusal.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_accepted_if_mlflow_accepts_it(name: str) -> None:
    try:
        validation._validate_metric(name, 1.0, 0, 0)
        accepted = len(name) <= validation.MAX_ENTITY_KEY_LENGTH  # which 2.8 checks in another function
    except MlflowException:
        accepted = False
    assert (refusal(name) is None) is accepted


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("val/../x", "Names may be treated as files"),
        ("a@b", "Names may only contain"),
        ("n" * 251, "names may have at most 250 characters, got 251"),
    ],
)
def test_the_error_gives_the_name_and_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"MLflow does not accept the metric name 'mine': {reason}"):
        check_metric_name(name, name="mine")
    with pytest.raises(ValueError, match=f"{reason}"):
        check_metric_name(name)


@pytest.mark.parametrize("moved", ["gone", "changed"])
def test_without_mlflows_function_a_rule_holds_that_every_version_accepts(
    moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = [name for name in NAMES if refusal(name) is None]
    refusal.cache_clear()
    if moved == "gone":
        monkeypatch.delattr(validation, "_validate_metric_name")
    else:
        monkeypatch.setattr(validation, "_validate_metric_name", lambda: None)
    found = [name for name in NAMES if refusal(name) is None]
    assert {"loss", "train/loss_step", "a b", "précision", "損失", "n" * 250} <= set(found) <= set(accepted)
    with pytest.raises(ValueError, match="names may contain letters, digits"):
        check_metric_name("a@b")


@pytest.mark.parametrize("name", NAMES)
def test_a_node_id_is_part_of_a_legal_name(name: str) -> None:
    try:
        Settings(node_id=name)
    except SettingsError:
        return
    assert refusal(f"system/{name}/cpu_utilization_percentage") is None
