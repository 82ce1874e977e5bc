"""What MLflow takes as the name of a metric."""

from __future__ import annotations

import re

LONGEST = 250
ALLOWED = "letters, digits, blanks, '_', '-', '.' and single '/' between them"  #: for messages

# What every MLflow since 2.0 takes: no colon, and no part that a path would swallow.
_PART = r"(?!\.{1,2}(/|$))[\w\-. ]+"
_NAME = re.compile(rf"{_PART}(/{_PART})*", re.ASCII)


def is_metric_name(text: str, longest: int = LONGEST) -> bool:
    """Tells whether a text can be the name of a metric, or the beginning of one up to a slash."""
    return len(text) <= longest and _NAME.fullmatch(text) is not None
