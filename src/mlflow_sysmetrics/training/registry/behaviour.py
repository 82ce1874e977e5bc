"""What a model returns for a sample, and what trying it needs: arrays, and unchanged random states."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# The registry's page shows the example, and a scoring server can be tried with it; a few rows are enough.
_EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Behaviour:
    """What a model returned for a sample.

    Attributes:
        inputs: the sample in a form that MLflow describes: an array, arrays by name, or a data frame.
        outputs: what the model returned, in such a form.
        plain: whether MLflow's own `pyfunc` wrapper can pass such inputs to the model and return such
            outputs.
    """

    inputs: Any
    outputs: Any
    plain: bool = True


@contextmanager
def same_random_numbers(devices: tuple[int, ...] = ()) -> Iterator[None]:
    """Restores the random states of Python, NumPy and PyTorch after the ``with`` block.

    Args:
        devices: CUDA devices whose random states may change as well.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    try:
        if torch is None:
            yield
        else:
            with torch.random.fork_rng(devices=list(devices)):
                yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def rows_of(sample: Any) -> Any:
    """Returns rows given as lists of numbers as an array; MLflow would take each list as a single value.

    A list of strings is returned as it is: MLflow serves it as a column.
    """
    if not isinstance(sample, (list, tuple)) or not sample or not isinstance(sample[0], (list, tuple)):
        return sample
    numpy = import_module("numpy")
    array = numpy.asarray(sample)
    return array if array.dtype.kind in "biuf" else sample


def example_of(inputs: Any) -> Any:
    """Returns the first rows of a model's inputs."""
    if isinstance(inputs, Mapping):
        return {name: example_of(value) for name, value in inputs.items()}
    return inputs[:_EXAMPLE_ROWS] if getattr(inputs, "ndim", 0) else inputs
