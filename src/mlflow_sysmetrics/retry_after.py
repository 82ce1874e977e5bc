"""When a server that is busy asks to be asked again."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


def seconds_from(retry_after: str, now: datetime) -> float | None:
    """Returns the seconds that a Retry-After header means, which are given or lie before a date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):  # TypeError is Python 3.10's
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - now).total_seconds(), 0.0)
