"""What a study optimises, and what counts as a value of it."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_sysmetrics.training.hpo.objectives import Objectives, objectives_of

ONE = Objectives(("f1",), ("maximize",))
TWO = Objectives(("f1", "latency"), ("maximize", "minimize"))


def test_one_objective_and_several() -> None:
    assert objectives_of("maximize", "f1", None, None) == ONE
    assert objectives_of("maximize", None, ["maximize", "minimize"], ["f1", "latency"]) == TWO
    assert (ONE.several, TWO.several) == (False, True)


@pytest.mark.parametrize("name", ["précision", "val/f1 - macro", "f" * 244])
def test_every_name_that_mlflow_accepts_is_accepted(name: str) -> None:
    assert objectives_of("maximize", name, None, None).metrics == (name,)


def test_several_without_names_are_numbered() -> None:
    assert objectives_of("maximize", None, ["minimize"] * 2, None).metrics == ("value_0", "value_1")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("up", "f1", None, None), "'up' is neither"),
        (("maximize", None, None, None), "metric is the name"),
        (("maximize", "f1!", None, None), "'f1!' cannot be a name in MLflow"),
        (("maximize", "/f1", None, None), "'/f1' cannot be a name in MLflow"),
        (("maximize", "", None, None), "'' cannot be a name in MLflow"),
        (("maximize", ".", None, None), "'.' cannot be a name in MLflow"),
        (("maximize", "val/../f1", None, None), "'val/../f1' cannot be a name in MLflow"),
        (("maximize", 1, None, None), "metric must be a string, got 1"),
        (("maximize", "f" * 245, None, None), "cannot be a name in MLflow"),
        (("maximize", None, None, ["f1"]), "needs directions="),
        (("maximize", "f1", ["maximize"], None), "metric='f1' is of one objective"),
        (("maximize", None, ["maximize"], ["a", "b"]), "There are 2 metrics"),
        (("maximize", None, ["maximize", "minimize"], ["a", "a"]), "the same name"),
        (("maximize", None, "maximize", None), "are lists"),
        (("maximize", None, [], None), "There are 0 metrics"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        objectives_of(*arguments)


class OneElement:
    """Is a number only by conversion, as a tensor is."""

    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("returned", "values"),
    [(1, (1.0,)), ([0.5], (0.5,)), (OneElement(), (0.5,)), (float("inf"), (float("inf"),))],
)
def test_what_is_a_number(returned: object, values: tuple[float, ...]) -> None:
    assert ONE.values_of(returned) == values


@pytest.mark.parametrize(
    ("objectives", "returned"),
    [
        (ONE, None),
        (ONE, float("nan")),
        (ONE, "0.5"),
        (ONE, {"f1": 1}),
        (ONE, (1, 2)),
        (TWO, 1.0),
        (TWO, (1, None)),
    ],
)
def test_what_is_none_is_named(objectives: Objectives, returned: object) -> None:
    with pytest.raises(ValueError, match="The objective function returned"):
        objectives.values_of(returned)
