"""What products that record system metrics cost a program that does nothing, each at its own defaults.

As a program::

    python -m venv peers && peers/bin/pip install wandb codecarbon nvitop swanlab trackio
    python benchmarks/peers.py --seconds 240 --peers peers/bin/python

All of them idle at the same time, each in a process of its own, so that each meets the same disturbances.
They are watched from outside, with the processes that they start. None of them needs a server elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import tables
from counting_server import counting_server
from tables import Table, figure
from variants import BUILT_IN, OURS

# What a start sets off has ended by then: first points, recovery, facts that are found later.
_SETTLE_SECONDS = 20.0
_SECONDS_PER_HOUR = 3600
_HOURS_PER_MONTH = 730
_MEGABYTE = 1e6
_OFF = {"MLFLOW_RUN_CONTEXT_PROVIDER": "none", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}

# The line "before" is where the memory that the product adds begins to count.
_MLFLOW = """
import mlflow, time
print("before", flush=True); input()
mlflow.start_run()
"""
_PEER = 'import time; print("before", flush=True); input()\n'
_PEERS: Mapping[str, str] = {
    "wandb": 'import wandb; run = wandb.init(project="idle", mode="offline", dir=".")',
    "codecarbon": """
from codecarbon import OfflineEmissionsTracker
tracker = OfflineEmissionsTracker(country_iso_code="DEU", save_to_file=False, log_level="critical")
tracker.start()
""",
    "nvitop": """
from nvitop import ResourceMetricCollector
collector = ResourceMetricCollector(devices=[])
collector.daemonize(on_collect=lambda metrics: True)
""",
    "swanlab": 'import swanlab; run = swanlab.init(project="idle", mode="offline", logdir="logs")',
    "trackio": 'import trackio; run = trackio.init(project="idle", embed=False)',
}
_IDLE = '\nprint("ready", flush=True)\ntime.sleep(1e6)\n'


class Usage(NamedTuple):
    """What a process and those that it has started have used so far."""

    cpu_seconds: float
    switches: int
    threads: int
    resident_bytes: int
    resident_bytes_of_children: int


class Product:
    """A program with one product, which idles.

    Args:
        name: the product.
        command: interpreter and code.
        environ: its environment.
        directory: its working and home directory.
    """

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], directory: str) -> None:
        self.name = name
        self.failure: str | None = None
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env={**environ, "HOME": directory},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._tree = psutil.Process(self._process.pid)
        self._before = 0

    def start(self) -> None:
        """Starts the product, and notes the memory that the program had before."""
        self._wait_for("before")
        if self.failure is None:
            self._before = self._tree.memory_info().rss
            print(file=self._process.stdin, flush=True)

    def wait_until_ready(self) -> None:
        """Waits until the product has started."""
        self._wait_for("ready")

    def usage(self) -> Usage:
        """Returns what it has used so far."""
        found = []
        for process in [self._tree, *self._tree.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                cpu = sum(times[:4])  # with that of its own children that have ended
                switches = sum(map(_voluntary, Path(f"/proc/{process.pid}/task").iterdir()))
                found.append((cpu, switches, process.num_threads(), process.memory_info().rss))
        cpu, switches, threads, _ = map(sum, zip(*found, strict=True))
        own, *children = [resident for *_, resident in found]
        return Usage(cpu, int(switches), int(threads), own - self._before, sum(children))

    def close(self) -> None:
        """Kills it and what it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self._tree.children(recursive=True):
                process.kill()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _wait_for(self, word: str) -> None:
        if self.failure is not None:
            return
        for line in self._process.stdout or ():
            if line.strip() == word:
                return
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        self.failure = lines[-1] if lines else "it ended at once"


def _voluntary(task: Path) -> int:
    try:
        text = (task / "status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return 0
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@contextlib.contextmanager
def _running(names: Sequence[str], peers: str) -> Iterator[list[Product]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    ours = {"off": _OFF, BUILT_IN.name: BUILT_IN.environ, OURS.name: OURS.environ}
    with ExitStack() as stack:
        products = []
        for name in names:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            if name in ours:
                server = stack.enter_context(counting_server())
                environ = {**clean, **ours[name], "MLFLOW_TRACKING_URI": server.url}
                command = [sys.executable, "-c", _MLFLOW + _IDLE]
            else:
                environ = {**clean, "WANDB_SILENT": "true", "TRACKIO_DIR": directory, "HF_HUB_OFFLINE": "1"}
                command = [peers, "-c", _PEER + _PEERS[name] + _IDLE]
            product = Product(name, command, environ, directory)
            stack.callback(product.close)
            products.append(product)
        for product in products:
            product.start()
        for product in products:
            product.wait_until_ready()
        yield products


def measure(seconds: float, names: Sequence[str], peers: str) -> dict[str, Any]:
    """Returns what each product costs.

    Args:
        seconds: how long they are watched.
        names: the products.
        peers: the interpreter that has those of others.
    """
    with _running(names, peers) as products:
        time.sleep(_SETTLE_SECONDS)
        working = [product for product in products if product.failure is None]
        began = {product.name: (time.perf_counter(), product.usage()) for product in working}
        time.sleep(seconds)
        found: dict[str, Any] = {}
        for product in products:
            if product.failure is not None:
                found[product.name] = {"failure": product.failure}
                continue
            at, before = began[product.name]
            after, wall = product.usage(), time.perf_counter() - at
            found[product.name] = {
                "cpu_share": (after.cpu_seconds - before.cpu_seconds) / wall,
                "switches_per_second": (after.switches - before.switches) / wall,
                "threads": after.threads,
                "resident_bytes_added": after.resident_bytes,
                "resident_bytes_of_children": after.resident_bytes_of_children,
            }
        return found


def table(seconds: float, found: Mapping[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    rows = []
    for name, one in found.items():
        if "failure" in one:
            rows.append((name, *["-"] * 6, one["failure"][:60]))
            continue
        share = one["cpu_share"]
        relative = share / found[BUILT_IN.name]["cpu_share"] if BUILT_IN.name in found else None
        rows.append(
            (
                name,
                figure(100 * share),
                "-" if relative is None else figure(relative),
                figure(share * _HOURS_PER_MONTH),
                figure(one["switches_per_second"]),
                str(one["threads"]),
                figure(one["resident_bytes_added"] / _MEGABYTE),
                figure(one["resident_bytes_of_children"] / _MEGABYTE),
            )
        )
    return Table(
        f"A program that does nothing for {seconds:.0f} s, each product at its own defaults",
        (
            *("", "% of a core", "built-in = 1", "CPU hours a month", "voluntary switches/s", "threads"),
            *("RSS added, MB", "RSS of its processes, MB"),
        ),
        rows,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Compares products that record system metrics.")
    every = ["off", BUILT_IN.name, OURS.name, *_PEERS]
    parser.add_argument("--seconds", type=float, default=240, help="how long they are watched")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the other products")
    parser.add_argument("--only", default=",".join(every), help=f"products, of {','.join(every)}")
    parser.add_argument("--json", action="store_true", help="print all measurements instead of the table")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(every):
        parser.error(f"--only must name products of {', '.join(every)}, got {', '.join(sorted(unknown))}")
    found = measure(options.seconds, names, options.peers)
    if options.json:
        print(json.dumps({"machine": tables.machine(), **found}, indent=1))
        return
    print(*(f"{name}: {value}" for name, value in tables.machine().items()), "", tables.NOISE, "", sep="\n")
    print(table(options.seconds, found))


if __name__ == "__main__":
    main()
