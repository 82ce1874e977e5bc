"""The syntax trees of this package's modules, parsed once for all tests of the source.

On pytest's path (`pythonpath` in pyproject.toml).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "mlflow_sysmetrics"


@functools.cache
def syntax_trees() -> Mapping[Path, ast.Module]:
    """Returns the syntax tree of every module, by its path."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


@functools.cache
def nodes(tree: ast.AST) -> Sequence[ast.AST]:
    """Returns every node of a tree, in no particular order: as `ast.walk`, in half the time, and once."""
    found = [tree]
    for node in found:
        for value in vars(node).values():
            if isinstance(value, ast.AST):
                found.append(value)
            elif isinstance(value, list):
                found += [one for one in value if isinstance(one, ast.AST)]
    return found
