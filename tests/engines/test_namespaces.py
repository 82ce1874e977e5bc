"""torchrun on two nodes that only the kernel tells apart: by network namespaces, with host names of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cluster_jobs import RHYTHM
from programs import QUIET

pytestmark = pytest.mark.engines

TRAINING = """
    import os, sys, time
    import mlflow, torch.distributed as dist
    from pathlib import Path
    dist.init_process_group("gloo")
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(mlflow.start_run().info.run_id)
    time.sleep(12)
    dist.barrier()
    if dist.get_rank() == 0:
        mlflow.end_run()
"""


def test_each_node_is_sampled_once_under_its_own_name(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra [train]")
    separate = ["unshare", "--net", "--uts"]
    if subprocess.run([*separate, "ip", "link", "add", "hub", "type", "bridge"], check=False).returncode:
        pytest.skip("needs the right to make network namespaces and bridges")
    script = tmp_path / "training.py"
    script.write_text(textwrap.dedent(TRAINING))
    (tmp_path / "tmp").mkdir()
    environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_SYSMETRICS_HOST_ID"}
    environ |= {**QUIET, **RHYTHM, "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
    environ["MLFLOW_SYSMETRICS_SPOOL_DIR"] = str(tmp_path / "spool")
    program = Path(__file__).with_name("namespaces.py")
    subprocess.run(
        [*separate, sys.executable, program, tmp_path, script],
        env=environ,
        cwd=tmp_path,
        check=True,
        timeout=400,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["codes"] == [0, 0]
    assert {key.rpartition("/")[0] for key in found["steps"]} == {"system/node_0", "system/node_1"}
    for key, steps in found["steps"].items():
        assert steps == sorted(set(steps)), key
    hosts = {
        found["tags"]["sys.hostname"],
        *(value for key, value in found["tags"].items() if "node_" in key and "hostname" in key),
    }
    assert hosts == {"gpu-a01", "gpu-a02"}
