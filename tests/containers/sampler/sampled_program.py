"""The program in the container: a run that lasts until SIGTERM, and children that do what a test asks for.

Its arguments are programs for its children. It prints what the sampler says of itself at the end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import mlflow

import mlflow_sysmetrics

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())  # the first process of a container ignores it otherwise
children = [subprocess.Popen([sys.executable, "-c", code]) for code in sys.argv[1:]]
with mlflow.start_run():
    sys.stdout.write("started\n")
    sys.stdout.flush()
    while not ended.wait(0.2):
        pass
    status = mlflow_sysmetrics.status()
for child in children:
    child.kill()
sys.stdout.write(
    json.dumps({"health": dict(status.collectors), "journal_failed": status.journal_failed}, default=str)
)
