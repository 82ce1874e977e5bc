"""The installed distribution of this package: what its extras need, and where this copy of it came from.

Its name is that of pyproject.toml, read from the metadata, so that it stands in one place. A remedy never
tells to install by name: the index has a different project under this one, up to version 0.1.3.
"""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution, entry_points, requires, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PACKAGE = "mlflow_sysmetrics"
_PROVIDERS = "mlflow.run_context_provider"  # the group of the entry points by which MLflow finds us
# What the extras need, if the metadata cannot be read: the package is importable and not installed.
_FALLBACK = {
    "cli": ("rich",),
    "train": ("pytorch-ignite", "torch", "tqdm"),
    "hpo": ("optuna", "plotly"),
    "server": ("Flask-WTF", "psycopg2-binary"),
    "prometheus": ("prometheus-client",),
    "otlp": ("opentelemetry-exporter-otlp-proto-http",),
}
_LAST_OF_OTHER_PROJECT = (0, 1, 3)
_REQUIREMENT = re.compile(r"""(?P<what>[^;]+);\s*extra\s*==\s*['"](?P<extra>[\w-]+)['"]\s*$""")


def distribution_name() -> str:
    """Returns the name of the distribution that MLflow loads this package from.

    Raises:
        PackageNotFoundError: the package is importable and not installed.
    """
    for one in entry_points(group=_PROVIDERS):
        if one.dist is not None and one.value.partition(":")[0].partition(".")[0] == _PACKAGE:
            return one.dist.name
    raise PackageNotFoundError(_PACKAGE)


def install_command(extra: str) -> str:
    """Returns the command that installs the libraries of an extra.

    Args:
        extra: name of the extra, such as "train".
    """
    try:
        found = [_REQUIREMENT.match(one) for one in requires(distribution_name()) or ()]
    except PackageNotFoundError:
        found = []
    # "torch (>=2.6)" is what some builders write for "torch>=2.6".
    needed = [
        re.sub(r"[()\s]", "", one["what"]) for one in found if one is not None and one["extra"] == extra
    ]
    return " ".join(["pip install", *(f'"{one}"' for one in needed or _FALLBACK[extra])])


def reinstall_command() -> str:
    """Returns the command that installs this copy again, from the place that it came from."""
    return " ".join(["pip install --force-reinstall --no-deps", *map(shlex.quote, _origin())])


def installed_version() -> str | None:
    """Returns the installed version; None if the package is only importable."""
    try:
        return version(distribution_name())
    except PackageNotFoundError:
        return None


def is_other_project(installed: str) -> bool:
    """Returns whether a version of this name is one of the other project on the index."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", installed)
    return found is not None and tuple(map(int, found.groups())) <= _LAST_OF_OTHER_PROJECT


def _origin() -> list[str]:
    """Returns pip's arguments for the directory, file or repository of this copy; else its version."""
    try:
        name = distribution_name()
        installed = distribution(name)
    except PackageNotFoundError:
        return [_source_tree()]
    try:
        recorded = json.loads(installed.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        recorded = {}
    url = recorded.get("url")
    if not isinstance(url, str):
        return [f"{name}=={installed.version}"]  # not of the other project, whose versions are lower
    if url.startswith("file:"):
        editable = (recorded.get("dir_info") or {}).get("editable")
        return [*(["-e"] if editable else []), unquote(urlsplit(url).path)]
    parts = urlsplit(url)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without user and password
    if vcs := recorded.get("vcs_info"):
        return [f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', 'HEAD')}"]
    return [url]


def _source_tree() -> str:
    """Returns the directory of the source tree that this module was imported from, if there is one."""
    root = Path(__file__).resolve().parents[3]
    return str(root) if (root / "pyproject.toml").exists() else "PATH_OF_THE_SOURCE_TREE"
