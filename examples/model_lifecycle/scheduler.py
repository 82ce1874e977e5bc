"""Waits for versions that nobody has decided on, and promotes those that are good enough.

Usage: python scheduler.py        (MLFLOW_TRACKING_URI names the server; Ctrl-C or SIGTERM ends it)
"""

from __future__ import annotations

import time

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_sysmetrics.training.registry import find_version, promote

NAME = "ships"
LEAST_ACCURACY = 0.7
POLL_SECONDS = 0.5
DECISION = "decision"  # kept at the version, so a scheduler that is started anew decides nothing twice


def undecided(client: MlflowClient) -> list[ModelVersion]:
    """Returns the versions that are ready and have no decision, oldest first."""
    found = client.search_model_versions(f"name='{NAME}'")
    waiting = [one for one in found if one.status == "READY" and DECISION not in one.tags]
    return sorted(waiting, key=lambda one: int(one.version))


def accuracy_of(client: MlflowClient, version: ModelVersion) -> float:
    """Returns the accuracy that the run of a version has logged; 0 if it has logged none."""
    return float(client.get_run(version.run_id).data.metrics.get("accuracy", 0.0))


def decide(client: MlflowClient, version: ModelVersion) -> str:
    """Promotes a version that is better than the one in production, archives any other, and says why."""
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
    """Decides on each version that appears, for as long as it is let."""
    client = MlflowClient()
    print("scheduler is waiting for versions", flush=True)
    while True:
        try:
            for version in undecided(client):
                decision = decide(client, version)
                client.set_model_version_tag(NAME, version.version, DECISION, decision)
                print(f"version {version.version}: {decision}", flush=True)
        except MlflowException as error:  # the server is away: what is undecided stays so until it is back
            print(f"scheduler goes on waiting: {error}", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    run()
