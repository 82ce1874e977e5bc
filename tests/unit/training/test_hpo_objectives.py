"""The objectives of a study, and what is accepted as a value of one."""

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
    ("arguments", "message"),
    [
        (("up", "f1", None, None), 'direction must be "maximize" or "minimize", got \'up\''),
        (("maximize", None, None, None), "metric must name the value to optimize"),
        *(
            (("maximize", name, None, None), rf"metric must be a valid MLflow metric name .*, got '{name}'")
            for name in ("f1!", "/f1", ".", "val/../x", "", "f" * 245)
        ),
        (("maximize", 1, None, None), "metric must be a string, got 1"),
        (("maximize", None, None, ["f1"]), "requires directions"),
        (("maximize", "f1", ["maximize"], None), "metric='f1' cannot be combined with directions"),
        (("maximize", None, ["maximize"], ["a", "b"]), "got 2 metrics"),
        (("maximize", None, ["maximize", "minimize"], ["a", "a"]), "metrics must be distinct"),
        (("maximize", None, "maximize", None), "must be lists"),
        (("maximize", None, [], None), "got 0 metrics"),
    ],
)
def test_invalid_objectives_are_rejected(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives_of(*arguments)


class OneElement:
    """A number only by conversion, like a one-element tensor."""

    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("returned", "values"),
    [(1, (1.0,)), ([0.5], (0.5,)), (OneElement(), (0.5,)), (float("inf"), (float("inf"),))],
)
def test_a_number_is_a_value(returned: object, values: tuple[float, ...]) -> None:
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
def test_an_unusable_value_is_named(objectives: Objectives, returned: object) -> None:
    with pytest.raises(ValueError, match="The objective function returned"):
        objectives.values_of(returned)
