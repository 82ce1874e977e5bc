"""The example in examples/registry does what its README says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import forks
from programs import QUIET, Store

from installed import require

require("torch")

EXAMPLE = Path(__file__).parents[3] / "examples" / "registry"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
COMMAND, SHOWN = (
    re.search(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
    for kind in ("bash", "text")
)


def without_numbers(text: str) -> str:
    """Masks the accuracies, which depend on the version of PyTorch."""
    return re.sub(r"0\.\d+", "0.N", text)


def test_the_readme_command_prints_what_the_readme_shows(store: Store, tmp_path: Path) -> None:
    # The database that the README names, created in advance.
    assert Path(store.uri.removeprefix("sqlite:///")) == tmp_path / "runs.db"
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    program, *arguments = COMMAND.split()
    assert program == "python"
    done = forks.run(
        [*arguments],
        cwd=tmp_path,
        env={**os.environ, **QUIET},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith(("🏃", "🧪"))]
    assert without_numbers("\n".join(said)) == without_numbers(SHOWN.strip())
    accuracies = [float(line.rpartition(" ")[2]) for line in said[:2]]
    assert accuracies[0] < accuracies[1]
