"""Whether the environment says, before any GPU is looked for, that the job uses none of any vendor."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_sysmetrics.machine.visible_gpus.amd import hides_amd_gpus
from mlflow_sysmetrics.machine.visible_gpus.intel import hides_intel_gpus
from mlflow_sysmetrics.machine.visible_gpus.nvidia import hides_nvidia_gpus
from mlflow_sysmetrics.machine.visible_gpus.wanted import follows_environment


def hides_every_gpu(environ: Mapping[str, str], wanted: str) -> bool:
    """Tells whether no GPU is watched, whatever the machine has.

    An empty CUDA_VISIBLE_DEVICES is how a job is told to use no GPU; it is taken for all vendors, unless a
    variable of another vendor says more. NVIDIA_VISIBLE_DEVICES says nothing of other vendors' GPUs.

    Args:
        environ: environment variables of the job.
        wanted: which GPUs the user wants watched, as `Settings.gpus`.
    """
    return (
        follows_environment(wanted)
        and hides_nvidia_gpus(environ)
        and hides_amd_gpus(environ)
        and hides_intel_gpus(environ)
    )
