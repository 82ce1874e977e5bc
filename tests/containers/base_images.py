"""The images that ours are built from: pulled, or made from Debian's packages where none can be pulled.

`debootstrap` makes them, with the names that the official images have. Such an image has the certificates of this
machine, since a network without registries usually has a proxy with a certificate of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker_host import CommandFailed, Docker

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_PULL_SECONDS = 600
_MAKE_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Base:
    """An official image, and what takes its place.

    Attributes:
        official: name of the image that the files of this repository use.
        substitute: name of the image made of Debian's packages: that of the official image of the version that
            Debian has.
        packages: what it is made of, beside a minimal Debian.
        files: further files, by path, all executable.
        changes: instructions of a Dockerfile.
    """

    official: str
    substitute: str
    packages: Sequence[str]
    files: dict[str, str]
    changes: Sequence[str]


PYTHON = Base(
    official="python:3.12-slim",
    substitute="python:3.11-slim",
    packages=("ca-certificates", "python-is-python3", "python3-pip", "python3-venv"),
    files={},
    changes=(f"ENV PIP_CERT=/{_CERTIFICATES}", 'CMD ["python3"]'),
)

# What the entry point of the official image does, as far as deploy/ relies on it.
_ENTRY = """#!/bin/sh
set -e
[ "$1" = postgres ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown postgres:postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb --username="${POSTGRES_USER:-postgres}" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \\
    --encoding=UTF8
  rm /tmp/password
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  # Without a network: nobody takes it for ready.
  pg_ctl --wait --options="-c listen_addresses=''" start
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  [ "$database" = postgres ] || createdb --username="$user" --maintenance-db=postgres "$database"
  pg_ctl --wait --mode=fast stop
fi
exec "$@" -c listen_addresses='*'
"""
_DATA = "/var/lib/postgresql/data"
POSTGRES = Base(
    official="postgres:16",
    substitute="postgres:15",
    packages=("ca-certificates", "postgresql"),
    files={"usr/local/bin/docker-entrypoint.sh": _ENTRY},
    changes=(
        f"ENV PGDATA={_DATA} PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["postgres"]',
        f"VOLUME {_DATA}",
        "STOPSIGNAL SIGINT",
    ),
)
BUSYBOX = Base(official="busybox:latest", substitute="busybox:debian", packages=(), files={}, changes=())


def available(docker: Docker, base: Base, cache: Path) -> str:
    """Returns the name of an image that the daemon has, pulled or made.

    Args:
        docker: the daemon.
        base: which image.
        cache: directory in which what was made is kept for the next session.
    """
    for name in (base.official, base.substitute):
        if docker.has_image(name):
            return name
    try:
        docker("pull", "--quiet", base.official, timeout=_PULL_SECONDS)
    except CommandFailed as error:
        reason = str(error).strip().splitlines()[-1]
    else:
        return base.official
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        pytest.exit(
            f"{base.official} cannot be pulled ({reason}); to make it from Debian's packages, install debootstrap"
            " and run this as root",
            returncode=1,
        )
    archive = docker("import", str(_archive(base, cache)), timeout=_MAKE_SECONDS)
    # Not with the import: it does not take every instruction.
    text = "\n".join([f"FROM {archive}", *base.changes, f"LABEL {docker.label}"])
    docker("build", "--quiet", "--force-rm", "--tag", base.substitute, "-", input=text, timeout=_MAKE_SECONDS)
    return base.substitute


def _archive(base: Base, cache: Path) -> Path:
    archive = cache / f"{SUITE}-{base.substitute.replace(':', '-')}.tar"
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(prefix="sysmetrics-test-base-", dir="/var/tmp") as directory:
        include = [f"--include={','.join(base.packages)}"] if base.packages else []
        _run("debootstrap", "--variant=minbase", *include, SUITE, directory, MIRROR)
        certificates = Path("/", _CERTIFICATES)
        if certificates.exists() and Path(directory, _CERTIFICATES).exists():
            shutil.copy(certificates, Path(directory, _CERTIFICATES))
        for name, text in base.files.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        shutil.rmtree(Path(directory, "var/cache/apt/archives"))
        unfinished = archive.with_suffix(".new")
        _run("tar", "--create", "--one-file-system", "--directory", directory, "--file", str(unfinished), ".")
        unfinished.rename(archive)
    return archive


def _run(*command: str) -> None:
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False, cwd="/"
    )
    assert finished.returncode == 0, f"{command[0]}: {finished.stdout[-2000:]}{finished.stderr[-2000:]}"
