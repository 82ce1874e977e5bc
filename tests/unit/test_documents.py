"""Every path, module, link and import named in the documents and in docstrings exists."""

from __future__ import annotations

import ast
import re
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "mlflow_sysmetrics"
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "deploy" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`+([^`\n]+)`+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Files of this repository; documents also name files of other projects, of users and of the operating system.
PATH = re.compile(r"(?<![\w./:{<>*~$-])([A-Za-z_.][\w.-]*(?:/[\w.-]+)*/?)(?![\w/{<>*])")
SUFFIXES = (".py", ".md", ".toml")
DOTTED = re.compile(r"(?<![\w./-])mlflow_sysmetrics((?:\.\w+)+)")
IMPORT = re.compile(r"from (mlflow_sysmetrics[\w.]*) import (\([^)]+\)|[\w, ]+)")
PROSE = re.compile(r'"""((?s:.*?))"""|^\s*#(.*)$|  # (.*)$', re.MULTILINE)  # docstrings and comments
NODE = re.compile(r"\w+[\[({]+\"?([^\"\])}]+)\"?[\])}]+")
# Metrics, artifacts and tags whose names look like paths or modules.
NOT_PATHS = frozenset({"preflight/ok", "preflight/ok.txt"})
NOT_MODULES = frozenset({".kind", ".stage"})


@cache
def repository_files() -> frozenset[str]:
    """Returns the paths of all files of this repository, and of their directories, relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr}")
    files = {line for line in listed.stdout.splitlines() if (ROOT / line).exists()}
    return frozenset(files | {str(parent) for file in files for parent in Path(file).parents})


@cache
def directories() -> frozenset[str]:
    """Returns the names of the directories that a path in a document may start with."""
    tops = {path.partition("/")[0] for path in repository_files() if "/" in path}
    return frozenset(tops | {path.name for path in PACKAGE.iterdir() if path.is_dir()})


def exists(path: str, beside: Path) -> bool:
    """Returns whether a path exists relative to the root, to the package, or to a directory beside it.

    A bare file name may also be anywhere: `mlflow_status.schema.json`, `debug_run.py`.
    """
    path = path.removeprefix("./").rstrip("/")
    if any((base / path).exists() for base in (ROOT, PACKAGE, PACKAGE.parent, beside)):
        return True
    return "/" not in path and any(file.endswith(f"/{path}") for file in repository_files())


def paths(text: str) -> Iterator[str]:
    """Yields what looks like a path of this repository."""
    for found in PATH.findall(text):
        path = found.rstrip(".")
        first = path.partition("/")[0]
        if path not in NOT_PATHS and (path.endswith(SUFFIXES) or ("/" in path and first in directories())):
            yield path


def missing_paths(text: str, beside: Path) -> list[str]:
    return [path for path in paths(text) if not exists(path, beside)]


@cache
def names_in(module: Path) -> frozenset[str]:
    """Returns the names that a module defines or imports, found without importing it."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(ast.parse(module.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(
                one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)
            )
        elif isinstance(node, ast.If | ast.Try):
            pending += [*node.body, *node.orelse]
    return frozenset(names)


def members_of(module: Path, name: str) -> frozenset[str] | None:
    """Returns the members of a class of a module; None if the name is not a class there."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            targets = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)}  # type: ignore[union-attr]
            return frozenset({one.name for one in node.body if isinstance(one, ast.FunctionDef)} | targets)
    return None


def resolves(dotted: str) -> bool:
    """Returns whether a dotted name below `mlflow_sysmetrics` is a module, or a name in one."""
    place, parts = PACKAGE, dotted.strip(".").split(".")
    while parts and (place / parts[0]).is_dir():
        place = place / parts.pop(0)
    module = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").is_file():
        module = place / f"{parts.pop(0)}.py"
    if not parts:
        return True
    if parts[0] not in names_in(module):
        return False
    members = members_of(module, parts[0])
    return len(parts) == 1 or members is None or parts[1] in members


def unresolved(text: str) -> list[str]:
    """Returns the dotted names and imports of a text that do not resolve."""
    wanted = set(DOTTED.findall(text))
    for module, names in IMPORT.findall(text):
        home = module.removeprefix("mlflow_sysmetrics")
        wanted |= {f"{home}.{name}" for name in re.findall(r"\w+", names)}
    return sorted(name for name in wanted if name not in NOT_MODULES and not resolves(name))


def comments_and_docstrings(module: Path) -> str:
    return "\n".join(map("".join, PROSE.findall(module.read_text(encoding="utf-8"))))


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_paths_in_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCE.findall(text) if language in {"", "bash"}]
    spans = CODE_SPAN.findall(FENCE.sub("", text))
    assert missing_paths("\n".join([*blocks, *spans]), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_relative_links_in_pages_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_modules_and_imports_in_pages_resolve(page: Path) -> None:
    assert unresolved(page.read_text(encoding="utf-8")) == []


def test_paths_and_modules_in_docstrings_and_comments_exist() -> None:
    missing = {}
    for module in sorted(PACKAGE.rglob("*.py")):
        text = comments_and_docstrings(module)
        if found := [*missing_paths(text, module.parent), *unresolved(text)]:
            missing[str(module.relative_to(PACKAGE))] = found
    assert missing == {}


def labels(page: Path) -> list[str]:
    """Returns the labels of the nodes of a page's Mermaid diagrams."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    return [label for language, block in blocks if language == "mermaid" for label in NODE.findall(block)]


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_python_block_compiles(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(textwrap.dedent(block), str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_paths_in_diagrams_exist(page: Path) -> None:
    words = [word for label in labels(page) for word in re.split(r"<br/?>|\s", label)]
    named = [word for word in words if "/" in word or word.endswith(".py")]
    assert [word for word in named if not exists(word, page.parent)] == []


def test_classes_and_functions_in_the_diagram_are_in_their_modules() -> None:
    """A label is a module, and on its second line the names it is there for: `module.py<br/>Name, name: text`."""
    nodes = [label.split("<br/>") for label in labels(ROOT / "CONTRIBUTING.md") if ".py<br/>" in label]
    assert len(nodes) > 10
    for path, text in nodes:
        for name in re.split(r": | \[", text)[0].split(", "):
            assert name in names_in(PACKAGE / path), (path, name)
