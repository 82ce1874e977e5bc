"""Names and values in the form that every MLflow takes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlflow.utils import validation

_ILLEGAL = re.compile(r"[^\w.\- /]")
_LONGEST_KEY = int(getattr(validation, "MAX_ENTITY_KEY_LENGTH", 250))
_LONGEST_VALUE = int(getattr(validation, "MAX_PARAM_VAL_LENGTH", 500))
_LONGEST_TAG = int(getattr(validation, "MAX_TAG_VAL_LENGTH", 5000))


def trial_run_name(number: int) -> str:
    """Returns the name of a trial's run, which counts from 1 where Optuna's numbers count from 0."""
    return f"trial_{number + 1:04d}"


def key_of(prefix: str, name: str) -> str:
    """Returns a key of MLflow for a name of the user's; what MLflow would refuse becomes an underscore."""
    parts = [part for part in _ILLEGAL.sub("_", name).split("/") if part.strip(".")]
    return f"{prefix}/{'/'.join(parts) or '_'}"[:_LONGEST_KEY].rstrip("/")


def params_of(prefix: str, values: Mapping[str, object]) -> dict[str, str]:
    """Returns parameters as MLflow takes them, under distinct keys; what is too long ends in an ellipsis."""
    params: dict[str, str] = {}
    for name, value in values.items():
        key, count = key_of(prefix, name), 1
        while key in params:
            count += 1
            ending = f"_{count}"
            key = key_of(prefix, name)[: _LONGEST_KEY - len(ending)] + ending
        params[key] = shortened(str(value), _LONGEST_VALUE)
    return params


def tag_value(value: object) -> str:
    """Returns the value of a tag as MLflow takes it."""
    return shortened(str(value), _LONGEST_TAG)


def shortened(text: str, longest: int) -> str:
    """Returns a text, cut where it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
