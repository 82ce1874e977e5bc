"""What a study optimizes: the name and the direction of each objective."""

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
        metrics: the metric name of each.
        directions: "maximize" or "minimize" for each.
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]

    @property
    def several(self) -> bool:
        """True if there is more than one objective, and therefore no single best trial."""
        return len(self.metrics) > 1

    def values_of(self, returned: Any) -> tuple[float, ...]:
        """Converts what an objective function returned to one number per objective.

        Raises:
            ValueError: Optuna would mark the trial as failed; says why.
        """
        # A string is a sequence, too: Optuna would iterate over its letters and fail.
        sequence = isinstance(returned, Sequence) and not isinstance(returned, (str, bytes))
        values = list(returned) if sequence else [returned]
        if len(values) != len(self.metrics):
            raise ValueError(
                f"The objective function returned {returned!r}, which is {len(values)} value(s); "
                f"it must return {len(self.metrics)}: {', '.join(self.metrics)}."
            )
        return tuple(_number(value) for value in values)


def objectives_of(
    direction: str, metric: str | None, directions: Sequence[str] | None, metrics: Sequence[str] | None
) -> Objectives:
    """Returns the objectives described by the arguments of `OptunaRunner`.

    Raises:
        ValueError: a direction or a name is invalid, or their counts differ.
    """
    if isinstance(directions, str) or isinstance(metrics, str):
        raise ValueError(
            "directions and metrics must be lists, got a string; for one objective use direction= and metric="
        )
    if directions is None:
        if metrics is not None:
            raise ValueError(
                f"metrics={list(metrics)!r} requires directions; pass directions=[...] with one per metric"
            )
        if metric is None:
            raise ValueError(
                'metric must name the value to optimize, got None; pass for example metric="val_f1_macro"'
            )
        objectives = Objectives((metric,), (direction,))
    else:
        if metric is not None:
            raise ValueError(
                f"metric={metric!r} cannot be combined with directions; pass metrics=[...] instead"
            )
        names = metrics if metrics is not None else [f"value_{index}" for index in range(len(directions))]
        objectives = Objectives(tuple(names), tuple(directions))
    _check(objectives)
    return objectives


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)  # also a one-element tensor
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"The objective function returned {value!r}, which is not a number.")
    return number


def _check(objectives: Objectives) -> None:
    if len(objectives.metrics) != len(objectives.directions) or not objectives.metrics:
        raise ValueError(
            f"metrics and directions must have the same length >= 1, got {len(objectives.metrics)} metrics "
            f"{list(objectives.metrics)!r} and {len(objectives.directions)} directions "
            f"{list(objectives.directions)!r}"
        )
    for direction in objectives.directions:
        if direction not in _DIRECTIONS:
            raise ValueError(f'direction must be "maximize" or "minimize", got {direction!r}')
    for name in objectives.metrics:
        if not isinstance(name, str):
            raise ValueError(f"metric must be a string, got {name!r}")
        reason = refusal(f"trial/{name}")  # the longest of its keys
        if reason is not None:
            raise ValueError(f"metric must be a valid MLflow metric name ({reason}), got {name!r}")
    if len(set(objectives.metrics)) != len(objectives.metrics):
        raise ValueError(f"metrics must be distinct, got {list(objectives.metrics)!r}")
