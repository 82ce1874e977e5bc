"""What the caller of a preflight wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """What the caller wants.

    Attributes:
        tracking_uri: where; None for the one in force.
        experiment_name: None for the one in force.
        run_name: None for one that MLflow makes up.
        tags: of the run.
        params: of the run.
        run_id: of a run to resume; None for a new one.
        check_artifacts: whether an artifact is written and read back.
    """

    tracking_uri: str | None
    experiment_name: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    check_artifacts: bool = False
