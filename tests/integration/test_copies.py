"""Objects of ours inside objects of a program: these can still be pickled, deep-copied and sent to a process."""

from __future__ import annotations

from programs import Program, Store

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
