"""Docker Compose for the tests: the plugin of docker or the program of its own, or Debian's package of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDED = (2, 20)  # depends_on has `required`, the file a name
# The first release of Debian that has such a version.
_SUITE = "trixie"
_MIRROR = "http://deb.debian.org/debian"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGE_SECONDS = 300


def compose_command(cache: Path) -> list[str]:
    """Returns the command of a Compose that can read deploy/compose.yaml.

    Args:
        cache: directory in which a package is kept for the next session.
    """
    found = [["docker", "compose"], ["docker-compose"], [str(cache / "docker-compose")]]
    for command in found:
        if _version(command) >= NEEDED:
            return command
    if os.getuid() == 0 and shutil.which("apt-get"):
        _from_debian(cache)
        if _version(found[-1]) >= NEEDED:
            return found[-1]
    return pytest.exit(f"these tests need Docker Compose {NEEDED[0]}.{NEEDED[1]} or newer", returncode=1)


def _version(command: list[str]) -> tuple[int, ...]:
    try:
        shown = subprocess.run([*command, "version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    match = re.search(r"version v?(\d+)\.(\d+)", shown)
    return (int(match[1]), int(match[2])) if match else ()


def _from_debian(cache: Path) -> None:
    """Unpacks the package of a newer Debian into the cache, without installing it."""
    directory = cache / "package"
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {_MIRROR} {_SUITE} main\n")
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": directory / "lists",
        "Dir::Cache": directory / "archives",
        "APT::Sandbox::User": "root",
    }
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    for command in (["update"], ["download", f"docker-compose/{_SUITE}"]):
        subprocess.run(
            ["apt-get", *given, *command],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=_PACKAGE_SECONDS,
        )
    [package] = directory.glob("docker-compose_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package.name, "tree"], cwd=directory, check=True)
    program = next(
        path for path in directory.rglob("docker-compose") if path.is_file() and os.access(path, os.X_OK)
    )
    shutil.copy(program, cache / "docker-compose")
    shutil.rmtree(directory)
