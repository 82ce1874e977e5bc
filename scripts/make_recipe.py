"""Writes the recipe for conda-forge from pyproject.toml, the one place of name, version and requirements.

    python scripts/make_recipe.py dist/NAME-1.0.0.tar.gz > recipe.yaml

The recipe builds from that sdist where the index has it, and is checked by its checksum.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """\
schema_version: 1

context:
  name: {name}
  version: "{version}"
  python_min: "{python}"

package:
  name: ${{{{ name }}}}
  version: ${{{{ version }}}}

source:
  url: https://pypi.org/packages/source/${{{{ name[0] }}}}/${{{{ name }}}}/{sdist}
  sha256: {checksum}

build:
  number: 0
  noarch: python
  script: ${{{{ PYTHON }}}} -m pip install . -vv --no-deps --no-build-isolation
  python:
    entry_points:
{programs}

requirements:
  host:
    - python ${{{{ python_min }}}}.*
    - pip
    - poetry-core >=2.0
  run:
    - python >=${{{{ python_min }}}}
{requirements}

tests:
  - python:
      imports: [mlflow_sysmetrics]
      pip_check: true
      python_version: ${{{{ python_min }}}}.*
  - script:
      - mlflow-sysmetrics --version

about:
  summary: {summary}
  license: Apache-2.0
  license_file: LICENSE
"""


class Project(NamedTuple):
    """What pyproject.toml says."""

    name: str
    version: str
    summary: str
    python: str
    requirements: list[str]
    programs: list[str]


def project(text: str) -> Project:
    """Reads pyproject.toml, whose form is known; Python 3.10 has no parser for it."""

    def value(key: str) -> str:
        [found] = re.findall(rf'^{key} = "([^"]+)"$', text, re.MULTILINE)
        return str(found)

    block = re.split(r"^dependencies = \[$", text, flags=re.MULTILINE)[1].split("\n]")[0]
    needed = [
        re.sub(r"([<>=!]=?)", r" \1", one, count=1)
        for one in re.findall(r'^  "([^"]+)"', block, re.MULTILINE)
    ]
    scripts = text.split("[project.scripts]\n")[1].split("\n\n", maxsplit=1)[0]
    programs = [" = ".join(one) for one in re.findall(r'^([\w-]+) = "([^"]+)"$', scripts, re.MULTILINE)]
    python = value("requires-python").removeprefix(">=")
    return Project(value("name"), value("version"), value("description"), python, needed, programs)


def recipe(text: str, sdist: str, checksum: str) -> str:
    """Returns the recipe.

    Args:
        text: pyproject.toml.
        sdist: name of the source archive.
        checksum: its SHA-256.
    """
    found = project(text)
    return RECIPE.format(
        name=found.name,
        version=found.version,
        python=found.python,
        sdist=sdist,
        checksum=checksum,
        programs="\n".join(f"      - {one}" for one in found.programs),
        requirements="\n".join(f"    - {one}" for one in found.requirements),
        summary=found.summary,
    )


def main() -> None:
    """Prints the recipe."""
    parser = argparse.ArgumentParser(description="Prints the recipe for conda-forge.")
    parser.add_argument("sdist", type=Path, help="the source archive of this version")
    archive: Path = parser.parse_args().sdist
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write(recipe(text, archive.name, checksum))


if __name__ == "__main__":
    main()
