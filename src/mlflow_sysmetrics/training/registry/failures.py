"""What is raised when a version of a model is there and could not be promoted."""

from __future__ import annotations

from mlflow_sysmetrics.errors import SysMetricsError


class PromotionError(SysMetricsError, RuntimeError):
    """A version is registered but not, or not wholly, promoted; says how to finish.

    Attributes:
        model_name: the registered model.
        version: the version, which may be loaded by its number.
    """

    def __init__(self, message: str, *, model_name: str, version: str) -> None:
        super().__init__(message)
        self.model_name = model_name
        self.version = version

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps its keyword arguments when it is pickled, as pools of workers do with errors."""
        return _rebuilt, (str(self), self.model_name, self.version)


def _rebuilt(message: str, model_name: str, version: str) -> PromotionError:
    return PromotionError(message, model_name=model_name, version=version)
