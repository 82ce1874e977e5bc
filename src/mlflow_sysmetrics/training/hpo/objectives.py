"""What a study optimises: the name and the direction of each objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.mlflow_api.metric_names import refusal

_DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Objectives:
    """The objectives of a study, in the order in which its objective function returns them.

    Attributes:
        metrics: their names.
        directions: "maximize" or "minimize" for each.
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether there is no single best trial."""
        return len(self.metrics) > 1

    def values_of(self, returned: Any) -> tuple[float, ...]:
        """Returns what an objective function has returned as one number per objective.

        Raises:
            ValueError: Optuna would call the trial failed; says why.
        """
        # Optuna takes a string for a sequence of its letters, and falls over it.
        sequence = isinstance(returned, Sequence) and not isinstance(returned, (str, bytes))
        values = list(returned) if sequence else [returned]
        if len(values) != len(self.metrics):
            wanted = ", ".join(self.metrics)
            raise ValueError(
                f"The objective function returned {returned!r}, which is {len(values)} value(s); "
                f"the study has {len(self.metrics)}: {wanted}."
            )
        return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)  # also a tensor of one element
    except (TypeError, ValueError):
        raise ValueError(f"The objective function returned {value!r}, which is no number.") from None
    if math.isnan(number):
        raise ValueError(f"The objective function returned {value!r}, which is no number.")
    return number


def objectives_of(
    direction: str, metric: str | None, directions: Sequence[str] | None, metrics: Sequence[str] | None
) -> Objectives:
    """Returns the objectives that the arguments of `OptunaRunner` mean.

    Raises:
        ValueError: a direction or a name is none, or there are not as many of one as of the other.
    """
    if isinstance(directions, str) or isinstance(metrics, str):
        raise ValueError("directions and metrics are lists; of one objective, use the singular.")
    if directions is None:
        if metrics is not None:
            raise ValueError(f"metrics={list(metrics)!r} needs directions=, with a direction for each.")
        if metric is None:
            raise ValueError('metric is the name of what is optimised, such as metric="val_f1_macro".')
        found = Objectives((metric,), (direction,))
    else:
        if metric is not None:
            raise ValueError(f"metric={metric!r} is of one objective; with directions=, give metrics=[...].")
        names = metrics if metrics is not None else [f"value_{index}" for index in range(len(directions))]
        found = Objectives(tuple(names), tuple(directions))
    _check(found)
    return found


def _check(found: Objectives) -> None:
    if len(found.metrics) != len(found.directions) or not found.metrics:
        raise ValueError(
            f"There are {len(found.metrics)} metrics {list(found.metrics)!r} and {len(found.directions)} "
            f"directions {list(found.directions)!r}; a direction belongs to each metric."
        )
    for direction in found.directions:
        if direction not in _DIRECTIONS:
            raise ValueError(f'The direction {direction!r} is neither "maximize" nor "minimize".')
    for name in found.metrics:
        if not isinstance(name, str):
            raise ValueError(f"metric must be a string, got {name!r}")
        reason = refusal(f"trial/{name}")  # the longest of its keys
        if reason is not None:
            raise ValueError(f"The metric {name!r} cannot be a name in MLflow: {reason}")
    if len(set(found.metrics)) != len(found.metrics):
        raise ValueError(f"Two of the metrics {list(found.metrics)!r} have the same name.")
