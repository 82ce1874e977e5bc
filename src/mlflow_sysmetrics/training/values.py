"""Values of metrics: what a training hands over as a number, and what becomes one later.

A value that lies on an accelerator is not a number yet: asking for it would have the program wait until the
device has done all that was queued before. Such values are kept on the device and fetched together.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex, cast

_LAST_PLACE = 2**63 - 1  # MLflow's steps are whole numbers of 64 bits; a database refuses what is larger


class Pending(NamedTuple):
    """A value that lies on an accelerator: a copy, since a training may write over the original."""

    tensor: Any


def as_number(name: str, value: object) -> float | Pending:
    """Returns a value as a number, or as one that is still to be fetched.

    Args:
        name: of the metric, for messages.
        value: a number, or an array or tensor of one element, of whatever library.

    Raises:
        TypeError: it is no number.
        ValueError: it has more than one element, or is a whole number beyond what a float holds.
    """
    if isinstance(value, (int, float)):  # bool, too: a flag is 0 or 1
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name}={value!r} is larger than any float") from None
    count = _elements(value)
    if count is None:
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; the value of a metric is a number")
    if count != 1:
        raise ValueError(f"{name} has {count} elements; reduce it to one number, for example by its mean")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value
        if torch.is_complex(tensor):
            raise TypeError(f"{name} is complex; the value of a metric is a real number")
        value = tensor.detach()
        if tensor.device.type != "cpu":
            return Pending(tensor.detach().clone().reshape(()))
    try:
        # What has one element in some dimensions is no scalar to every library.
        return float(value.item() if hasattr(value, "item") else cast("SupportsFloat", value))
    except (TypeError, ValueError, RuntimeError) as error:  # of the library whose value it is
        raise TypeError(f"{name}={value!r} is not a number: {error}") from error


def number(name: str, value: object) -> float:
    """Returns a value as a number now, also one that lies on an accelerator.

    Raises:
        TypeError: as `as_number`.
        ValueError: as `as_number`.
        RuntimeError: as `fetch`.
    """
    found = as_number(name, value)
    return fetch([found])[0] if isinstance(found, Pending) else found


def as_place(axis: str, value: object) -> int:
    """Returns a place on an axis as Python's own whole number.

    Those of NumPy and torch come from loops over arrays; a request to a server cannot hold them.

    Args:
        axis: such as "step", for messages.
        value: a whole number, of whatever library.

    Raises:
        ValueError: it is none, or out of range.
    """
    try:
        place = -1 if isinstance(value, bool) else operator.index(cast("SupportsIndex", value))
    except TypeError:  # of a fraction, of a text, and of what has many elements
        place = -1
    if not 0 <= place <= _LAST_PLACE:
        raise ValueError(f"{axis}={value!r} is no whole number from 0 to {_LAST_PLACE}")
    return place


def fetch(pending: Sequence[Pending]) -> list[float]:
    """Returns the numbers of values on an accelerator, with one synchronisation per device.

    Raises:
        RuntimeError: the device has failed; whatever the training does next on it fails, too.
    """
    torch = sys.modules["torch"]
    found = [0.0] * len(pending)
    places: dict[Any, list[int]] = {}
    for place, one in enumerate(pending):
        places.setdefault(one.tensor.device, []).append(place)
    for device, of_device in places.items():
        wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's has no double precision
        together = torch.stack([pending[place].tensor.to(wide) for place in of_device])
        for place, number in zip(of_device, together.tolist(), strict=True):
            found[place] = number
    return found


def _elements(value: object) -> int | None:
    """Returns how many elements an array or tensor has; None for what is neither."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        return None
    shape = getattr(value, "shape", ())
    count = 1
    try:
        for length in shape:
            count *= int(length)
    except TypeError:  # a shape that is not known, or no shape
        return None
    return count
