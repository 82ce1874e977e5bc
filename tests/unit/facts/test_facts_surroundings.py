"""The surroundings of a job: container, cloud, scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts_machines import machine

from mlflow_sysmetrics.facts.surroundings import cloud, container, scheduler_tags

SNAPSHOT = (
    "700 600 0:60 / / rw - overlay overlay rw,"
    "lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs\n"
)


@pytest.mark.parametrize(
    ("environ", "files", "kind"),
    [
        ({}, {}, None),
        ({}, {"proc/self/cgroup": "0::/user.slice/user-1000.slice/session-2.scope\n"}, None),
        ({}, {"proc/self/cgroup": "0::/system.slice/docker.service\n"}, None),
        ({}, {".dockerenv": ""}, "docker"),
        ({}, {"run/.containerenv": "", ".dockerenv": ""}, "podman"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {".dockerenv": ""}, "kubernetes"),
        (
            {},
            {"proc/self/cgroup": "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n"},
            "kubernetes",
        ),
        ({"APPTAINER_CONTAINER": "/x.sif", "SINGULARITY_CONTAINER": "/x.sif"}, {}, "apptainer"),
        ({"SINGULARITY_CONTAINER": "/x.sif"}, {}, "singularity"),
        ({"container": "lxc"}, {}, "lxc"),
        ({"container": "oci"}, {}, None),
        ({}, {"proc/self/cgroup": "5:memory:/docker/c0ffee\n"}, "docker"),
        ({}, {"proc/self/cgroup": "0::/system.slice/docker-c0ffee.scope\n"}, "docker"),
        ({}, {"proc/self/cgroup": "0::/machine.slice/libpod-c0ffee.scope\n"}, "podman"),
        ({}, {"proc/self/cgroup": "0::/lxc.payload.box/init.scope\n"}, "lxc"),
        ({}, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": SNAPSHOT}, "containerd"),
        ({}, {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"}, "wsl"),
        ({}, {"proc/sys/kernel/osrelease": "6.8.0-45-generic\n"}, None),
    ],
)
def test_detects_the_container(
    tmp_path: Path, environ: dict[str, str], files: dict[str, str], kind: str | None
) -> None:
    assert container(machine(tmp_path, files, environ=environ)) == kind


@pytest.mark.parametrize(
    ("dmi", "expected"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "p5.48xlarge"}, "aws p5.48xlarge"),
        ({"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"}, "aws"),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
        (
            {
                "sys_vendor": "Microsoft Corporation",
                "product_name": "Virtual Machine",
                "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
            },
            "azure",
        ),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, None),
        ({"sys_vendor": "QEMU", "chassis_asset_tag": "OracleCloud.com"}, "oracle"),
        ({"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)"}, None),
        ({"sys_vendor": "Supermicro", "product_name": "AS -8125GS-TNHR", "chassis_asset_tag": ""}, None),
        ({}, None),
    ],
)
def test_detects_the_cloud(tmp_path: Path, dmi: dict[str, str], expected: str | None) -> None:
    files = {f"sys/class/dmi/id/{name}": f"{text}\n" for name, text in dmi.items()}
    assert cloud(machine(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        (
            {"SLURM_JOB_ID": "4711", "SLURMD_NODENAME": "gpu-07", "SLURM_NODEID": "1"},
            {"sys.scheduler": "slurm", "sys.job_id": "4711", "sys.node": "gpu-07"},
        ),
        (
            {"SLURM_JOB_ID": "4711", "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "3"},
            {"sys.scheduler": "slurm", "sys.job_id": "4711", "sys.node": "3"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-0", "NODE_NAME": "node-a"},
            {"sys.scheduler": "kubernetes", "sys.job_id": "train-0", "sys.node": "node-a"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "h", "POD_NAME": "train-0"},
            {"sys.scheduler": "kubernetes", "sys.job_id": "train-0"},
        ),
        ({"RAY_JOB_ID": "01000000"}, {"sys.scheduler": "ray", "sys.job_id": "01000000"}),
        ({"DASK_SCHEDULER_ADDRESS": "tcp://10.0.0.2:8786"}, {"sys.scheduler": "dask"}),
        (
            {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0"},
            {"sys.scheduler": "torchrun", "sys.node": "0"},
        ),
        ({"LSB_JOBID": "99"}, {"sys.scheduler": "lsf", "sys.job_id": "99"}),
        (
            {"PBS_JOBID": "12.server", "PBS_NODENUM": "0"},
            {"sys.scheduler": "pbs", "sys.job_id": "12.server", "sys.node": "0"},
        ),
    ],
)
def test_detects_the_scheduler(environ: dict[str, str], expected: dict[str, str]) -> None:
    assert dict(scheduler_tags(environ)) == expected
