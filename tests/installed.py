"""Skips tests of what is not installed, without importing it: every worker collects every module."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def require(*names: str, reason: str | None = None) -> None:
    """Skips the module or the test that calls this if a library is not installed.

    Args:
        names: modules at the top of their packages.
        reason: the reason of the skip; by default it names the module.
    """
    for name in names:
        if find_spec(name) is None:
            pytest.skip(reason or f"{name} is not installed", allow_module_level=True)
