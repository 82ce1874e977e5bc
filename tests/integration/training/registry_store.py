"""The content of a registry, read by tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlflow

# Given explicitly: to infer them MLflow loads each model in another process, which takes seconds.
REQUIREMENTS = ["mlflow"]


@dataclass(frozen=True)
class Registry:
    """The content of a store, read through MLflow.

    Attributes:
        client: an MLflow client of the store.
        run_id: the active run.
    """

    client: Any
    run_id: str

    def versions(self, name: str) -> list[Any]:
        return sorted(self.client.search_model_versions(f"name='{name}'"), key=lambda one: int(one.version))

    def stages(self, name: str) -> dict[int, str]:
        return {int(one.version): one.current_stage for one in self.versions(name)}

    def is_empty(self) -> bool:
        """Returns whether nothing has been logged or registered."""
        logged = self.client.list_artifacts(self.run_id)
        if hasattr(self.client, "search_logged_models"):
            logged += self.client.search_logged_models(["0"])
        return not logged and not self.client.search_registered_models()


def active_run_id() -> str | None:
    """Returns the run that is active in this thread."""
    active = mlflow.active_run()
    return None if active is None else str(active.info.run_id)
