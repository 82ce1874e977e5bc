"""Programs that sample fast and share the spool directory of a test, and the `sync` of their journals."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from chaos_nursery import Nursery, Program
from chaos_sampled import COLLECTORS

MONITORS_RESUMED_RUNS = tuple(map(int, version("mlflow").split(".")[:2])) >= (2, 9)

FAST = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "60",  # an upper bound: a flush returns once everything is delivered
    "MLFLOW_SYSMETRICS_COLLECTORS": COLLECTORS,
}

# The command as typed, in a process that has already imported MLflow. On a busy machine a server may need longer
# than the ten seconds of the default until the requests of killed programs are off its hands.
SYNC = """
    import runpy
    sys.argv = ["mlflow-sysmetrics", "sync", "--wait", "60s", "--dir", os.environ["SPOOL"]]
    runpy.run_module("mlflow_sysmetrics.cli", run_name="__main__")
"""


class Starter:
    """Starts programs that sample fast and share the spool directory of a test, and kills those left."""

    def __init__(self, started_by: Nursery, spool: Path) -> None:
        self.programs: list[Program] = []
        self._syncs: list[Program] = []
        self._nursery = started_by
        self._spool = spool

    def __call__(self, code: str, **environ: str) -> Program:
        chosen = {**FAST, "MLFLOW_SYSMETRICS_SPOOL_DIR": str(self._spool), **environ}
        program = self._nursery.start(code, **chosen)
        self.programs.append(program)
        return program

    def sync(self) -> str:
        """Runs `mlflow-sysmetrics sync` on the journals of the test and returns its output."""
        program = self.begin_sync()
        assert program.wait() == 0, program.stdout + program.stderr
        return program.stdout

    def begin_sync(self) -> Program:
        """Starts `mlflow-sysmetrics sync` on the journals of the test; it samples nothing."""
        program = self._nursery.start(SYNC, SPOOL=str(self._spool))
        self._syncs.append(program)
        return program

    @property
    def sides(self) -> list[Path]:
        """The side files of all programs."""
        return [program.side for program in self.programs if program.side.exists()]

    def end(self) -> None:
        """Kills the programs that still run."""
        for program in (*self.programs, *self._syncs):
            if not program.ended:
                program.kill()
                program.wait()


def journals(spool: Path) -> list[Path]:
    """Returns the journals in a directory."""
    return sorted(spool.glob("*.jsonl"))
