"""What tells a process its place in a job of two nodes, and what the run of the job has."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

RHYTHM = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "2",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.5",
}


def job(rank: int, directory: Path) -> dict[str, str]:
    """Returns what tells a process its place, and its node from the others."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % 2),
        "SLURM_NODEID": str(rank // 2),
        "MLFLOW_SYSMETRICS_HOST_ID": f"machine {rank // 2}",
        "MLFLOW_SYSMETRICS_SPOOL_DIR": str(directory / "spool"),
        "TMPDIR": str(directory / "tmp"),
    }


def steps(client: MlflowClient, run_id: str, key: str) -> list[int]:
    return [one.step for one in client.get_metric_history(run_id, key)]


def nodes(client: MlflowClient, run_id: str) -> set[str]:
    keys = client.get_run(run_id).data.metrics
    return {key.rpartition("/")[0] for key in keys if not key.startswith("system/summary/")}
