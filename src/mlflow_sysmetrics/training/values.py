"""Metric values: converts the numbers of any library to floats.

Reading a value from an accelerator blocks until the device has finished all queued work. Such values
therefore stay on the device as `Pending` and are fetched in batches.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex, cast

from mlflow_sysmetrics.interruptions import reraise_interruption

_LARGEST_STEP = 2**63 - 1  # MLflow's steps are 64-bit integers; a database refuses larger ones


class Pending(NamedTuple):
    """A value on an accelerator, copied: the training may overwrite the original."""

    tensor: Any


def as_number(name: str, value: object) -> float | Pending:
    """Returns a value as a float, or as `Pending` if it is on an accelerator.

    Args:
        name: the metric's name, for messages.
        value: a number, or an array or tensor of one element, of any library.

    Raises:
        TypeError: it is not a number.
        ValueError: it has more than one element, or is an integer too large for a float.
    """
    if isinstance(value, (int, float)):  # includes bool: a flag is 0 or 1
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must fit into a float, got {value!r}") from None
    count = _elements(value)
    if count is None:
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if count != 1:
        raise ValueError(f"{name} must be one number, got {count} elements; pass, for example, their mean")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value
        if torch.is_complex(tensor):
            raise TypeError(f"{name} must be a real number, got a complex tensor")
        value = tensor.detach()
        if tensor.device.type != "cpu":
            return Pending(tensor.detach().clone().reshape(()))
    try:
        # Some libraries convert an array of shape (1, 1) by item() only.
        return float(value.item() if hasattr(value, "item") else cast("SupportsFloat", value))
    except (TypeError, ValueError, RuntimeError) as error:  # raised by the library of the value
        reraise_interruption(error)
        raise TypeError(f"{name} must be a number, got {value!r}: {error}") from error


def number(name: str, value: object) -> float:
    """Returns a value as a float; waits for the device if it is on an accelerator.

    Raises:
        TypeError: see `as_number`.
        ValueError: see `as_number`.
        RuntimeError: see `fetch`.
    """
    converted = as_number(name, value)
    return fetch([converted])[0] if isinstance(converted, Pending) else converted


def as_step(axis: str, value: object) -> int:
    """Returns a position on an axis as Python's int.

    A loop over an array yields integers of NumPy or torch, which a request to a server cannot hold.

    Args:
        axis: its name, such as "step", for messages.
        value: an integer of any library.

    Raises:
        ValueError: it is not an integer, or out of range.
    """
    try:
        step = -1 if isinstance(value, bool) else operator.index(cast("SupportsIndex", value))
    except TypeError:  # a float, a string, an array of several elements
        step = -1
    if not 0 <= step <= _LARGEST_STEP:
        raise ValueError(f"{axis} must be an integer from 0 to {_LARGEST_STEP}, got {value!r}")
    return step


def fetch(pending: Sequence[Pending]) -> list[float]:
    """Returns the numbers of values on accelerators, with one synchronisation per device.

    Raises:
        RuntimeError: the device has failed; the training's next operation on it fails, too.
    """
    torch = sys.modules["torch"]
    numbers = [0.0] * len(pending)
    indices: dict[Any, list[int]] = {}
    for index, one in enumerate(pending):
        indices.setdefault(one.tensor.device, []).append(index)
    for device, of_device in indices.items():
        wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs lack double precision
        stacked = torch.stack([pending[index].tensor.to(wide) for index in of_device])
        for index, number in zip(of_device, stacked.tolist(), strict=True):
            numbers[index] = number
    return numbers


def _elements(value: object) -> int | None:
    """Returns the number of elements of an array or tensor, or None for any other object."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        return None
    shape = getattr(value, "shape", ())
    count = 1
    try:
        for length in shape:
            count *= int(length)
    except TypeError:  # an unknown shape, or an attribute of that name with another meaning
        return None
    return count
