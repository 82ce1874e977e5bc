"""Values of NumPy in a checkpoint: written as plain numbers and tensors, restored with the types they had.

torch reads a checkpoint safely (``weights_only=True``) only if it holds tensors and plain values of Python.
With a learning rate from ``np.logspace`` or an array in a model's ``get_extra_state()``, a file could be
written but not read. The types are kept beside the values, so that a resumed training computes with the same
ones, and a program that reads the file itself finds plain values.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

NUMPY_TYPES = (
    "numpy_types"  # the key of a checkpoint with the types, by place: [[key, key, ...], name of the type]
)
_ARRAY = "array:"
_Place = tuple[Any, ...]


def to_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state without values of NumPy, and with their types under ``numpy_types`` if there are any.

    Keys and members of sets become plain for good: they equal those of NumPy, also when they are looked up.
    What torch cannot read either way, such as an array of objects, stays as it is.
    """
    numpy: Any = sys.modules.get("numpy")
    types: list[list[Any]] = []

    def replace(value: Any, place: _Place) -> Any:
        if isinstance(value, numpy.generic):
            found, name = _plain_number(value), value.dtype.name
        elif isinstance(value, numpy.ndarray):
            found, name = _plain_array(value), f"{_ARRAY}{value.dtype.name}"
        else:
            return value
        if found is not value and value.dtype.kind not in "US":
            types.append([list(place), name])
        return found

    if numpy is None:
        return dict(state)
    plain: dict[str, Any] = _mapped(dict(state), replace)
    return {**plain, NUMPY_TYPES: types} if types else plain


def from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state that was given to `to_plain`."""
    types = {tuple(place): name for place, name in state.get(NUMPY_TYPES, ())}
    rest = {key: value for key, value in state.items() if key != NUMPY_TYPES}
    if not types:
        return rest
    import numpy as np

    def replace(value: Any, place: _Place) -> Any:
        name = types.get(place)
        if name is None:
            return value
        return value.numpy() if name.startswith(_ARRAY) else np.dtype(name).type(value)

    restored: dict[str, Any] = _mapped(rest, replace)
    return restored


def _mapped(value: Any, replace: Callable[[Any, _Place], Any], place: _Place = ()) -> Any:
    """Returns a copy of nested dicts, lists and tuples in which `replace` has seen every other value."""
    kind = type(value)
    if kind in (dict, OrderedDict, Counter):
        plain = ((_plain_key(key), item) for key, item in value.items())
        return kind({key: _mapped(item, replace, (*place, key)) for key, item in plain})
    if kind is set:
        return set(map(_plain_key, value))
    if kind in (list, tuple):
        return kind(_mapped(item, replace, (*place, index)) for index, item in enumerate(value))
    return replace(value, place)


def _plain_key(key: Any) -> Any:
    """Returns what equals a key in Python: `MultiStepLR` counts its milestones by the number it was given."""
    if type(key) is tuple:
        return tuple(map(_plain_key, key))
    numpy: Any = sys.modules.get("numpy")
    return _plain_number(key) if numpy is not None and isinstance(key, numpy.generic) else key


def _plain_number(value: Any) -> Any:
    """Returns what equals a number, truth value or text of NumPy in Python; a date is returned as it is."""
    kind = value.dtype.kind
    if kind in "biucUS":
        return value.item()
    return float(value) if kind == "f" else value  # item() of a long double is one again


def _plain_array(value: Any) -> Any:
    """Returns the tensor that equals an array, or the array itself if there is none."""
    try:
        return torch.from_numpy(value.copy())
    except (TypeError, ValueError):  # texts, objects, records, long doubles; another byte order
        return value
