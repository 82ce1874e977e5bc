"""The cloud provider, and the instance type where the machine itself tells it.

Source:  the firmware's DMI strings in /sys/class/dmi/id, as the providers document them for telling their
         machines apart. The metadata service is never asked: a tag is no reason for network traffic.
Absent:  bare metal, a provider that is not listed, or a container that hides /sys.
Check:   grep . /sys/class/dmi/id/{sys_vendor,product_name,bios_version,chassis_asset_tag}
"""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.machine.host import Host


class _Mark(NamedTuple):
    """A DMI string that tells a provider; `type_file` holds the instance type where there is one."""

    file: str
    start: str
    provider: str
    type_file: str | None = None


_MARKS = (
    _Mark("sys_vendor", "amazon ec2", "aws", "product_name"),
    _Mark("bios_vendor", "amazon ec2", "aws", "product_name"),
    # Xen instances say "HVM domU" everywhere else.
    _Mark("bios_version", "4.2.amazon", "aws"),
    _Mark("bios_version", "4.11.amazon", "aws"),
    _Mark("product_name", "google compute engine", "gcp"),
    # "MSFT AZURE VM" in ASCII codes; sys_vendor alone is the same for every Hyper-V machine.
    _Mark("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "azure"),
    _Mark("chassis_asset_tag", "oraclecloud.com", "oracle"),
    _Mark("sys_vendor", "alibaba cloud", "alibaba"),
    _Mark("sys_vendor", "digitalocean", "digitalocean"),
    _Mark("sys_vendor", "hetzner", "hetzner"),
    _Mark("sys_vendor", "scaleway", "scaleway", "product_name"),
    _Mark("sys_vendor", "tencent cloud", "tencent"),
)


def cloud(host: Host) -> str | None:
    """Returns "aws p5.48xlarge", "gcp"; None where no provider is recognised."""
    for mark in _MARKS:
        if _dmi(host, mark.file).lower().startswith(mark.start):
            instance_type = _dmi(host, mark.type_file) if mark.type_file else ""
            return f"{mark.provider} {instance_type}".strip()
    return None


def _dmi(host: Host, name: str) -> str:
    try:
        return host.read_text(f"sys/class/dmi/id/{name}").strip()
    except OSError:
        return ""
