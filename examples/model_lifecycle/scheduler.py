"""Waits for versions without a decision, and promotes those that are good enough.

Usage: python scheduler.py        (MLFLOW_TRACKING_URI names the server; Ctrl-C or SIGTERM stops it)
"""

from __future__ import annotations

import time

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_sysmetrics import promote
from mlflow_sysmetrics.training import find_version

NAME = "ships"
LEAST_ACCURACY = 0.7
POLL_SECONDS = 0.5
DECISION = "decision"  # a tag of the version, so that a restarted scheduler decides nothing twice


def undecided(client: MlflowClient) -> list[ModelVersion]:
    """Returns the versions that are ready and have no decision, oldest first."""
    found = client.search_model_versions(f"name='{NAME}'")
    waiting = [one for one in found if one.status == "READY" and DECISION not in one.tags]
    return sorted(waiting, key=lambda one: int(one.version))


def accuracy_of(client: MlflowClient, version: ModelVersion) -> float:
    """Returns the accuracy logged to the run of a version; 0 if there is none."""
    return float(client.get_run(version.run_id).data.metrics.get("accuracy", 0.0))


def decide(client: MlflowClient, version: ModelVersion) -> str:
    """Promotes a version that is better than the one in production, else archives it; returns the reason."""
    accuracy = accuracy_of(client, version)
    try:
        best = accuracy_of(client, find_version(NAME))
    except LookupError:  # nothing is in production yet
        best = 0.0
    if accuracy < LEAST_ACCURACY:
        promote(NAME, version.version, "Archived")
        return f"archived, {accuracy:.2f} is below {LEAST_ACCURACY:.2f}"
    if accuracy <= best:
        promote(NAME, version.version, "Archived")
        return f"archived, {accuracy:.2f} is not better than {best:.2f}"
    promote(NAME, version.version, "Production")
    return f"promoted, {accuracy:.2f} is better than {best:.2f}"


def run() -> None:
    """Decides on each new version until the program is stopped."""
    client = MlflowClient()
    print("scheduler is waiting for versions", flush=True)
    while True:
        try:
            for version in undecided(client):
                decision = decide(client, version)
                client.set_model_version_tag(NAME, version.version, DECISION, decision)
                print(f"version {version.version}: {decision}", flush=True)
        except MlflowException as error:  # the server is unreachable: decide when it is back
            print(f"scheduler keeps waiting: {error}", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    run()
