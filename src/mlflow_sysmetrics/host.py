r"""The machine as one argument, for authors of collectors of their own: a collector takes a `Host`.

`Host()` is this machine; `Host(root=directory)` is a directory with `proc` and `sys`, as a test writes it.
These are the public names of what `mlflow_sysmetrics.machine` holds; the package itself imports it from
there, so that this module costs nothing unless a program asks for it.

    from mlflow_sysmetrics.host import Host
    from mlflow_sysmetrics.samples import Kind, Sample

    class Running:
        def __init__(self, host: Host) -> None:
            self._file = host.files.keep(str(host.root / "proc/loadavg"))  # stays open

        def collect(self, now: float):
            running, _, _ = self._file.read().split()[3].partition(b"/")
            yield Sample("running_threads", Kind.GAUGE, int(running))

    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("0.1 0.2 0.3 7/900 4242\n")
    assert [sample.value for sample in Running(Host(root=tmp_path)).collect(0)] == [7]
"""

from __future__ import annotations

from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.machine.kept_files import KeptFile, read_bytes, read_short

__all__ = ["DiskUsage", "Host", "KeptFile", "read_bytes", "read_short"]
