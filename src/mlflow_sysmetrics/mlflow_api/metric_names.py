"""Metric names: the installed MLflow decides which it accepts.

The rule depends on its version and on the operating system: 2.22 accepts a colon except on Windows, 2.13 does
not. So MLflow's own validation is called, not copied. A server of another version may still refuse a name;
delivery treats that like any other point that a server refuses.
"""

from __future__ import annotations

import re
from functools import lru_cache

# The rule common to all versions since 2.0, for a version that has moved its validation.
_LONGEST = 250
_PART = r"(?!\.{1,2}(/|$))[\w\-. ]+"
_SAFE_NAME = re.compile(rf"(?!\.\.){_PART}(/{_PART})*")
_SAFE_CHARACTERS = (
    "names may contain letters, digits, underscores, dashes, periods, spaces and single slashes between "
    "parts; no part may be '.' or '..', and they may not start with '..'"
)


@lru_cache(maxsize=1024)  # adapters check every value; a training has few names
def refusal(key: str) -> str | None:
    """Returns why MLflow refuses a metric name, or None if it accepts it.

    Args:
        key: the complete name, as it is sent.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    longest = getattr(validation, "MAX_ENTITY_KEY_LENGTH", _LONGEST)
    if len(key) > longest:
        return f"names may have at most {longest} characters, got {len(key)}"
    validate = getattr(validation, "_validate_metric_name", None)
    try:
        if validate is not None:
            validate(key)
            return None
    except MlflowException as error:
        message = str(error.message)
        return message[max(message.find("Names "), 0) :].rstrip(".")  # what comes before repeats the name
    except TypeError:  # a private function may change its arguments
        pass
    return None if _SAFE_NAME.fullmatch(key) else _SAFE_CHARACTERS


def check_metric_name(key: str, *, name: object = None) -> None:
    """Checks a metric name.

    Args:
        key: the complete name, as it is sent.
        name: the part that the caller has chosen, for the message; the whole name by default.

    Raises:
        ValueError: MLflow refuses it; gives MLflow's reason.
    """
    reason = refusal(key)
    if reason is not None:
        given = key if name is None else name
        raise ValueError(f"MLflow does not accept the metric name {given!r}: {reason}")
