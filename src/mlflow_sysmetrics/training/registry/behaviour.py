"""What a model does with a sample, and the random numbers that trying it must not use up."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# A registry's page shows the example, and a scoring server may be tried with it: a few rows say all.
_EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Behaviour:
    """What a model made of a sample.

    Attributes:
        inputs: the sample as MLflow describes it: an array, arrays by name, or a data frame.
        outputs: the same of what the model returned.
        plain: whether MLflow's own `pyfunc` wrapper can give the model such inputs and take such outputs.
    """

    inputs: Any
    outputs: Any
    plain: bool = True


@contextmanager
def same_random_numbers(devices: tuple[int, ...] = ()) -> Iterator[None]:
    """Leaves Python's, NumPy's and PyTorch's random numbers after the ``with`` block as before it.

    Args:
        devices: CUDA devices whose random numbers may be used as well.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    of_python = random.getstate()
    of_numpy = numpy.random.get_state() if numpy is not None else None
    try:
        if torch is None:
            yield
        else:
            with torch.random.fork_rng(devices=list(devices)):
                yield
    finally:
        random.setstate(of_python)
        if numpy is not None:
            numpy.random.set_state(of_numpy)


def as_arrays(sample: Any) -> Any:
    """Returns a sample with NumPy arrays in place of tensors; MLflow describes a tensor as "any"."""
    if isinstance(sample, Mapping):
        return {str(name): as_arrays(value) for name, value in sample.items()}
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(sample, torch.Tensor):
        return sample
    dense = sample.detach().cpu().to_dense() if sample.layout != torch.strided else sample.detach().cpu()
    if dense.dtype == torch.bfloat16:  # NumPy has no such type
        dense = dense.float()
    # A copy: what comes of the CPU shares its memory with the caller's tensor.
    return dense.resolve_conj().resolve_neg().numpy().copy()


def rows_of(sample: Any) -> Any:
    """Returns rows that are lists of numbers as an array: MLflow takes each list for one value.

    A list of texts stays one, as MLflow serves it as a column.
    """
    if not isinstance(sample, (list, tuple)) or not sample or not isinstance(sample[0], (list, tuple)):
        return sample
    numpy = import_module("numpy")
    found = numpy.asarray(sample)
    return found if found.dtype.kind in "biuf" else sample


def example_of(inputs: Any) -> Any:
    """Returns the first rows of what a model takes."""
    if isinstance(inputs, Mapping):
        return {name: example_of(value) for name, value in inputs.items()}
    return inputs[:_EXAMPLE_ROWS] if getattr(inputs, "ndim", 0) else inputs
