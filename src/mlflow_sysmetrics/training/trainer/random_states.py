"""The states of random number generators, which decide how a training goes on."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch


def random_states(device: torch.device, loaders: Sequence[object]) -> dict[str, Any]:
    """Returns the states of Python's, NumPy's and torch's generators, and of those that loaders have.

    All of it is made of tensors and plain values, so that torch loads it with ``weights_only=True``.
    """
    found: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        found["numpy"] = (name, keys.tolist(), *rest)
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state_all()
    found["loaders"] = [generator.get_state() for generator in _generators(loaders)]
    return found


def restore(states: Mapping[str, Any], device: torch.device, loaders: Sequence[object]) -> None:
    """Puts generators back into the states that `random_states` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    torch.set_rng_state(states["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in states:
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, keys, *rest))
    # With another number of GPUs there is no telling which state is whose.
    if device.type == "cuda" and len(states.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    for generator, state in zip(_generators(loaders), states["loaders"], strict=False):
        generator.set_state(state)


def _generators(loaders: Sequence[object]) -> Iterator[torch.Generator]:
    for loader in loaders:
        sampler = getattr(loader, "sampler", None)
        for owner in (loader, sampler, getattr(loader, "batch_sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                yield generator
