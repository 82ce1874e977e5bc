"""How much longer `import mlflow` takes with the plugin installed.

Two temporary virtual environments link to the same installed files and differ only by our package, so one
side has no trace of it: no entry point to find, no metadata to read, no path to search. The other has the
package laid out as in a wheel, even if this interpreter has an editable installation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from tables import Cell, Table

import mlflow_sysmetrics
from mlflow_sysmetrics.runtime.distribution import distribution_name

_MILLISECONDS = 1000
_LONGEST_IMPORT_SECONDS = 120
_MEASURE = """
import json, sys, time
from importlib.metadata import entry_points
wall, cpu = time.perf_counter(), time.process_time()
import mlflow
took = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
present = any(e.name == "sysmetrics" for e in entry_points(group="mlflow.run_context_provider"))
loaded = [name for name in sys.modules if name.partition(".")[0] == "mlflow_sysmetrics"]
print(json.dumps({**took, "present": present, "loaded": len(loaded)}))
"""


def _our_entries() -> list[Path]:
    """Returns the directories of our package and its metadata, wherever they are installed."""
    ours = distribution(distribution_name())
    metadata = next(
        Path(str(ours.locate_file(file))).parent for file in ours.files or () if file.name == "METADATA"
    )
    return [Path(mlflow_sysmetrics.__path__[0]), metadata]


def _environment(directory: Path, *, with_ours: bool) -> Path:
    """Creates a virtual environment of links and returns its interpreter."""
    venv.EnvBuilder(symlinks=True).create(directory)
    installed = Path(sysconfig.get_path("purelib"))
    links = directory / installed.relative_to(sys.prefix)
    for entry in installed.iterdir():
        if not entry.name.lstrip("_").startswith(("mlflow_sysmetrics", "editable___mlflow_sysmetrics")):
            (links / entry.name).symlink_to(entry)
    if with_ours:
        for entry in _our_entries():
            (links / entry.name).symlink_to(entry)
    return directory / Path(sys.executable).relative_to(sys.prefix)


def _import_once(interpreter: Path, *, with_ours: bool) -> dict[str, Any]:
    command = [str(interpreter), "-I", "-c", _MEASURE]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_LONGEST_IMPORT_SECONDS
    )
    found: dict[str, Any] = json.loads(done.stdout)
    if found["present"] is not with_ours or bool(found["loaded"]) is not with_ours:
        raise AssertionError(f"with_ours={with_ours}, but {found}")
    return found


def measure(repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the duration of each import without and with our package, alternately.

    Raises:
        AssertionError: the plugin was loaded on the wrong side, or not loaded on the other one.
    """
    with tempfile.TemporaryDirectory() as directory:
        interpreters = {
            with_ours: _environment(Path(directory, str(with_ours)), with_ours=with_ours)
            for with_ours in (False, True)
        }
        found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for number in range(repetitions + 1):
            for with_ours in (False, True) if number % 2 else (True, False):
                found[with_ours].append(_import_once(interpreters[with_ours], with_ours=with_ours))
    # Without the first pair, which fills the disk cache and compiles modules.
    return {"without": found[False][1:], "with": found[True][1:]}


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Returns the table of what `measure` found."""
    rows = []
    for label, figure_of in (("wall time, ms", "wall_seconds"), ("CPU time, ms", "cpu_seconds")):
        without, ours = (
            [once[figure_of] * _MILLISECONDS for once in found[side]] for side in ("without", "with")
        )
        more = Cell([b - a for a, b in zip(without, ours, strict=True)])
        rows.append((label, Cell(without).show(), Cell(ours).show(), more.show()))
    heading = ("", "without the plugin", "with the plugin", "difference of each pair")
    return Table(f"import mlflow, {len(found['with'])} fresh interpreters of each side", heading, rows)
