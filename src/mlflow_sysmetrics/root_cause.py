"""What lies at the bottom of an exception: "Connection refused", not the layers above it."""

from __future__ import annotations


def root_cause(error: BaseException) -> BaseException:
    """Returns what an exception was raised from, or while it was handled; itself where that is nothing."""
    root = error
    seen = {error}
    while (deeper := root.__cause__ or root.__context__) is not None and deeper not in seen:
        root = deeper
        seen.add(root)
    return root
