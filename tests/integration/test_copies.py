"""Objects of ours inside objects of a program: these can still be pickled, deep-copied and sent to a process."""

from __future__ import annotations

import pytest
from programs import Program, Store

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

# Each object in the ways in which programs copy their models; prints what does not work, and why.
COPIES = """
import copy, pickle
import cloudpickle
from mlflow_sysmetrics import errors
from mlflow_sysmetrics.daemon import open_writer, watch
WAYS = {
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "cloudpickle": lambda one: cloudpickle.loads(cloudpickle.dumps(one)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
logging.basicConfig(format="%(message)s")
refused = {}
with mlflow.start_run(log_system_metrics=False) as run:
    made = {
        "recorder": mlflow_sysmetrics.MetricRecorder(),
        "logger": mlflow_sysmetrics.SystemMetricsLogger(),
        "attachment": mlflow_sysmetrics.attach(run.info.run_id),
        "writer": open_writer(run.info.run_id),
        "status": mlflow_sysmetrics.status(),
        "settings": mlflow_sysmetrics.Settings(),
        "watch": watch(),
        "server": mlflow_sysmetrics.LocalServer(),
        "error": errors.RunStartError("no", step=3, status_code=500, tracking_uri="http://h"),
        **{name: getattr(mlflow_sysmetrics, name) for name in mlflow_sysmetrics.__all__},
    }
    copies = {}
    for name, one in made.items():
        for way, copied in WAYS.items():
            try:
                copies[name, way] = copied({"held": one})["held"] if way != "copy" else copied(one)
            except TypeError as error:
                refused.setdefault(str(error), []).append(f"{name} {way}")
    for way in WAYS:
        recorder = copies["recorder", way]
        recorder.step(1, loss=0.5)
        recorder.epoch(1, train_loss=0.5)
        assert recorder.run_id == run.info.run_id and recorder.close()
        logger = copies["logger", way]
        assert logger.log_metrics(1) == {} and logger.close()
        attachment = copies["attachment", way]
        attachment.put_tags({"a": "b"})
        assert attachment.run_id == run.info.run_id and attachment.detach()
        copies["writer", way].write([])
        assert copies["writer", way].close()
        assert copies["status", way] == made["status"]
        assert copies["settings", way] == made["settings"]
        assert copies["error", way].step == 3
    assert mlflow_sysmetrics.status().attached == (run.info.run_id,)  # the original
    made["recorder"].step(1, loss=0.25)
    made["recorder"].close()
    made["attachment"].detach()
print(run.info.run_id)
for reason, cases in refused.items():
    print(f"{len(cases)}|{reason}", file=sys.stderr)
"""

SPAWNED = """
import multiprocessing
class Model:
    def __init__(self):
        self.recorder = mlflow_sysmetrics.MetricRecorder()
        self.machine = mlflow_sysmetrics.SystemMetricsLogger()
    def train(self, step):
        self.recorder.step(step, loss=step)
        self.machine.log_metrics(step, prefix="own")
        return step
if __name__ == "__main__":
    with mlflow.start_run(log_system_metrics=False) as run:
        model = Model()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(model.train, [1, 2]) == [1, 2]
        model.train(3)
        model.recorder.close()
    print(run.info.run_id)
"""


def test_public_objects_can_be_copied_or_say_why_not(program: Program, store: Store) -> None:
    done = program(store.uri, COPIES)
    (run_id,) = done.words
    assert [point.value for point in store.points(run_id, "train/loss_step")] == [0.25]
    assert "epoch/train_loss" not in store.client.get_run(run_id).data.metrics
    refusals = [line for line in done.stderr.splitlines() if "cannot be pickled" in line]
    assert sorted(line.partition(",")[0] for line in refusals) == [
        "4|a LocalServer cannot be pickled or copied",
        "4|a Watch cannot be pickled or copied",
    ]
    for kind in ("MetricRecorder", "SystemMetricsLogger"):
        assert done.stderr.count(f"a copy of a {kind} records nothing") == 1


def test_a_model_with_a_recorder_can_be_sent_to_a_worker(program: Program, store: Store) -> None:
    done = program(store.uri, SPAWNED)
    (run_id,) = done.words
    assert [point.step for point in store.points(run_id, "train/loss_step")] == [3]
    assert [point.step for point in store.points(run_id, "own/cpu_percent")] == [3]
    assert "a copy of a MetricRecorder records nothing" in done.stderr


# Every public name, found by the lists of the modules, in every way; of a class an object, made as programs get it.
EVERYTHING = """
import copy, dataclasses, importlib, inspect, multiprocessing, pickle
from datetime import datetime, timezone
import cloudpickle
from mlflow_sysmetrics import errors
from mlflow_sysmetrics.daemon import Point, open_writer, watch
from mlflow_sysmetrics.preflight import JobStatus, preflight
from mlflow_sysmetrics.server import ServerConfig
MODULES = ["daemon", "errors", "preflight", "server", "training"]

def spawned(text):
    return pickle.dumps(pickle.loads(text))

def through_spawn(pool):
    return lambda one: pickle.loads(pool.apply(spawned, (pickle.dumps(one),)))

def public():
    for module in [mlflow_sysmetrics, *(importlib.import_module("mlflow_sysmetrics." + one) for one in MODULES)]:
        names = getattr(module, "__all__", None) or [
            name for name, one in vars(module).items()
            if inspect.isclass(one) and one.__module__ == module.__name__
        ]
        yield from ((module.__name__ + "." + name, getattr(module, name)) for name in names)

def error_of(kind):
    if issubclass(kind, errors.PreflightError):
        return kind("no", step=3, status_code=500, tracking_uri="http://h", attempts=(attempt,))
    if kind is errors.PromotionError:
        return kind("no", model_name="ships", version="3")
    return kind("no")

if __name__ == "__main__":
    import torch  # here, so that the process of the pool need not
    logging.basicConfig(format="%(message)s")
    attempt = errors.Attempt(1, 1, datetime.now(timezone.utc), 0.5, 200, None)
    checked = preflight("ships")
    runner = mlflow_sysmetrics.OptunaRunner("study", metric="f1")
    network = torch.nn.Linear(2, 1)
    rows = torch.utils.data.DataLoader([(torch.ones(2), torch.ones(1))])
    with mlflow.start_run(run_id=checked.run_id) as run:
        made = [
            attempt, checked, runner, JobStatus(stage="initialized", attempts=(attempt,)), Point("k", 1.0, 1, 1),
            runner.optimize(lambda trial: trial.suggest_float("x", 0, 1), 1),
            mlflow_sysmetrics.LocalServer(), mlflow_sysmetrics.MetricRecorder(), mlflow_sysmetrics.Settings(),
            mlflow_sysmetrics.SysMetricsDaemonRunContextProvider(), mlflow_sysmetrics.SysMetricsRunContextProvider(),
            mlflow_sysmetrics.SystemMetricsLogger(), mlflow_sysmetrics.attach(run.info.run_id), watch(),
            mlflow_sysmetrics.Trainer(network, rows, None, torch.optim.SGD(network.parameters(), 0.1),
                                      torch.nn.MSELoss(), "cpu"),
            mlflow_sysmetrics.status(), open_writer(run.info.run_id),
            ServerConfig(backend_store_uri="sqlite:///secret.db", artifacts_destination="artifacts"),
        ]
        every = dict(public())
        kinds = {one for one in every.values() if inspect.isclass(one)}
        made += [error_of(one) for one in kinds if issubclass(one, Exception)]
        print("not made:", sorted(one.__name__ for one in kinds - set(map(type, made))))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            ways = {
                "pickle": lambda one: pickle.loads(pickle.dumps(one)),
                "cloudpickle": lambda one: cloudpickle.loads(cloudpickle.dumps(one)),
                "deepcopy": copy.deepcopy, "copy": copy.copy, "spawn": through_spawn(pool),
            }
            for way, copied in ways.items():
                for name, one in every.items():
                    assert copied(one) is one, (name, way)
                for one in made:
                    try:
                        again = copied([one])[0] if way != "copy" else copied(one)
                    except TypeError as error:
                        print("refused:", type(one).__name__, way, error, sep="|")
                        continue
                    assert repr(again) and str(again)
                    if dataclasses.is_dataclass(one):
                        assert again == one
                    if isinstance(one, Exception):
                        assert type(again) is type(one) and str(again) == str(one), (one, way)
                        assert vars(again) == vars(one)
"""


def test_every_public_name_survives_every_way_or_says_why_not(program: Program, store: Store) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("mlflow_sysmetrics.training.trainer.engines")
    done = program(store.uri, EVERYTHING)
    lines = done.stdout.splitlines()
    assert "not made: []" in lines
    refused: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.startswith("refused:"):
            _, kind, way, reason = line.split("|")
            refused.setdefault((kind, reason), []).append(way)
    assert {kind for kind, _ in refused} == {"LocalServer", "Trainer", "Watch"}
    assert all(len(ways) == 5 and "cannot be pickled" in reason for (_, reason), ways in refused.items())
