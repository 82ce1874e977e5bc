"""A source of each family hangs in turn, in a real process: the others go on, it is named, and it comes back."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from counting_server import CountingServer
from programs import Program

from recorded import HOSTS, files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the machine is one of Linux")

# How the tag names a source, and where only this one hangs: a file of the machine, or a function.
SOURCES = {
    "cpu": "proc/stat",
    "memory": "proc/meminfo",
    "pressure": "cpu.pressure",
    "process": "proc/41100/stat",
    "disk": "disk_usage",
    "network": "proc/net/dev",
    "fabric (InfiniBand)": "port_rcv_data",
    "energy": "energy_uj",
    "gpu (nvidia)": "nvmlDeviceGetTemperature",
    "gpu_profile (nvidia)": "nvmlGpmSampleGet",
    "gpu (amd)": "gpu_busy_percent",
}
OF_PROCESSES = {"gpu (nvidia)", "gpu (amd)", "gpu_profile (amd, intel)"}
ENVIRON = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",  # long enough for a rate at each tick
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2",
    "MLFLOW_SYSMETRICS_COLLECTORS": "+fabric,+gpu_profile",
}
# A machine put together from several, and a way to let one of its sources hang. What hangs is left behind after
# 0.4 s and named after 1.5 s here, instead of one and five seconds.
MACHINE = """
    import json
    from pathlib import Path
    from mlflow_sysmetrics.collectors import COLLECTORS
    from mlflow_sysmetrics.daemon import process, watchdog
    from mlflow_sysmetrics.daemon.daemon import Daemon
    from mlflow_sysmetrics.daemon.sampling import probe, sampler_thread
    from mlflow_sysmetrics.machine import kept_files
    from mlflow_sysmetrics.machine.host import DiskUsage, Host
    from mlflow_sysmetrics.settings import Settings
    import recorded

    probe.HANGS_SECONDS = sampler_thread.HANGS_SECONDS = 1.5
    sampler_thread._SHORTEST_PATIENCE_SECONDS = 0.4
    watchdog._METRICS_SECONDS = 0.2
    kept_files.MOST_KEPT = 0  # files are opened at every tick, and `may_hang` asked
    root = Path(os.environ["ROOT"])

    HANGS, STUCK, ANSWERS = [], set(), threading.Event()
    def may_hang(where):
        if HANGS and HANGS[0] in where and threading.current_thread().name == "sysmetrics-sampler":
            STUCK.add(threading.get_ident())
            ANSWERS.wait(120)
    open_file = os.open
    def opened(path, *arguments, **more):
        text = os.fsdecode(path) if isinstance(path, (str, bytes)) else str(path)
        if text.startswith(str(root)):
            may_hang(text)
        return open_file(path, *arguments, **more)
    os.open = opened

    class Nvml(recorded.FakeNvml):
        def __getattribute__(self, name):
            may_hang(name)
            return super().__getattribute__(name)
    gpus = json.loads(Path(os.environ["GPUS"]).read_text())
    nvml = Nvml(*(recorded._gpu(gpu) for gpu in gpus))

    def disk_usage(path):
        may_hang("disk_usage")
        return DiskUsage(100, 40, 60)
    host = Host(
        root=root, environ={}, disk_usage=disk_usage, working_directory=lambda: "/", has_nvml=lambda: True,
        load_nvml=lambda: nvml,
    )
    process._daemon = Daemon(Settings.from_environ(), host=host, collectors=COLLECTORS)
    keys = {}
    read = probe.Probe.read
    def noted(self, now, **named):
        samples = read(self, now, **named)
        keys.setdefault(self.name, set()).update(sample.key for sample in samples)
        return samples
    probe.Probe.read = noted
"""
IN_TURN = """
    client = mlflow.MlflowClient()
    windows = {}
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        def says():
            return client.get_run(run_id).data.tags["sys.metrics"]
        def hanging():
            collectors = mlflow_sysmetrics.status().collectors
            return [one for one, health in collectors.items() if health.startswith("hanging")]
        eventually(lambda: all(keys.get(name) for name in sources))
        for name, where in sources.items():
            ANSWERS.clear()
            STUCK.clear()
            HANGS[:] = [where]
            eventually(lambda: STUCK)
            ticked(1)  # what hangs for the same reason is stuck, too, and all of it is left behind
            began = time.time()
            ticked(5)
            ended = time.time()
            eventually(lambda: mlflow_sysmetrics.status().collectors[name].startswith("hanging"))
            eventually(lambda: len(hanging()) == len(STUCK))
            eventually(lambda: name in says())
            windows[name] = began, ended, hanging()
            HANGS.clear()
            ANSWERS.set()
            eventually(lambda: not hanging())
            eventually(lambda: says() == "on")
        status = mlflow_sysmetrics.status()
        samplers = [one.name for one in threading.enumerate() if one.name == "sysmetrics-sampler"]
    print("FOUND " + json.dumps({
        "run": run_id, "windows": windows, "keys": {name: sorted(keys[name]) for name in sources},
        "running": status.running, "error": status.last_error, "samplers": len(samplers),
    }))
"""


def machine(root: Path) -> None:
    """Puts a machine together that has every family; its CPU times are those of this one."""
    for name in ("amd-radeon", "cgroup2-limits", "bare-metal-numa"):
        recorded = next(path for path in HOSTS if path.name == name)
        for path, content in files(recorded / "first").items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    (root / "proc/stat").unlink()
    (root / "proc/stat").symlink_to("/proc/stat")


def test_each_family_in_turn(program: Program, server: CountingServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    machine(root)
    gpus = next(path for path in HOSTS if path.name == "gpu-node") / "gpus.json"
    code = MACHINE + f"    sources = {SOURCES!r}\n" + IN_TURN
    finished = program(server.url, code, ROOT=str(root), GPUS=str(gpus), **ENVIRON)
    found = json.loads(finished.stdout.split("FOUND ")[1].splitlines()[0])
    assert (found["running"], found["error"], found["samplers"]) == (True, None, 1)
    points = server.points(found["run"])
    for hung, (began, ended, hanging) in found["windows"].items():
        # The tree of processes is read for the memory of each on the GPUs, too.
        assert hanging == [hung] or (hung == "process" and set(hanging) <= {hung, *OF_PROCESSES})
        for name, keys in found["keys"].items():
            moments = [
                {
                    point["timestamp"]
                    for point in points[f"system/{key}"]
                    if began <= point["timestamp"] / 1000 <= ended
                }
                for key in keys
                if f"system/{key}" in points
            ]
            most = max(map(len, moments))
            assert most == 0 if name in hanging else most >= 3, (hung, name, moments)
    named = Counter(name for *_, hanging in found["windows"].values() for name in hanging)
    assert {name: finished.stderr.count(f"Collector {name} hangs") for name in named} == named
