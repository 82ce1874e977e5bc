"""Disks and networks: space and throughput of filesystems, traffic and errors of interfaces."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

DISK_USAGE_PERCENTAGE = Metric(
    name="disk_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.DISK,
    meaning="used share of the working directory's filesystem, relative to the space open to ordinary users",
    source="statvfs; GetDiskFreeSpaceEx on Windows",
    bad="near 100: the next checkpoint fails",
)
DISK_USAGE = Metric(
    name="disk_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="used space on the working directory's filesystem",
    source="as disk_usage_percentage",
    bad="a steady rise: checkpoints or caches accumulate",
)
DISK_AVAILABLE = Metric(
    name="disk_available_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="space on the working directory's filesystem that is available to an ordinary user",
    source="as disk_usage_percentage",
    bad="less than the size of a checkpoint: the next one fails",
)
NAMED_DISK_USAGE_PERCENTAGE = Metric(
    name="disk_{name}_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.DISK,
    meaning="as disk_usage_percentage, for a further filesystem",
    source="as disk_usage_percentage",
    bad="as disk_usage_percentage",
    only="for each further filesystem in MLFLOW_SYSMETRICS_DISKS",
)
NAMED_DISK_USAGE = Metric(
    name="disk_{name}_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="as disk_usage_megabytes, for a further filesystem",
    source="as disk_usage_percentage",
    bad="as disk_usage_megabytes",
    only="for each further filesystem in MLFLOW_SYSMETRICS_DISKS",
)
NAMED_DISK_AVAILABLE = Metric(
    name="disk_{name}_available_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="as disk_available_megabytes, for a further filesystem",
    source="as disk_usage_percentage",
    bad="as disk_available_megabytes",
    only="for each further filesystem in MLFLOW_SYSMETRICS_DISKS",
)
DISK_READ = Metric(
    name="disk_read_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.DISK,
    meaning=(
        "bytes read from the devices behind the watched filesystems, by all processes; from all disks if "
        "those devices are unknown"
    ),
    source="/sys/class/block/<device>/stat; psutil.disk_io_counters elsewhere",
    bad="at the device's limit with an idle GPU: the data set is read too slowly",
)
DISK_WRITE = Metric(
    name="disk_write_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.DISK,
    meaning="bytes written to the same devices",
    source="as disk_read_megabytes_per_second",
    bad="peaks during which the GPU is idle: checkpoints are written in the training loop",
)
DISK_BUSY = Metric(
    name="disk_busy_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.DISK,
    meaning="share of time in which the busiest of these devices had requests to serve",
    source="/sys/class/block/<device>/stat io_ticks",
    bad=(
        "near 100 on a spinning disk: it is the bottleneck; an SSD serves many requests at once and may "
        "have headroom"
    ),
)


NETWORK_RECEIVE = Metric(
    name="network_receive_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes received since the run was attached, without loopback; no byte counts twice",
    source="/proc/net/dev, with interfaces selected by /sys/class/net; psutil.net_io_counters elsewhere",
    bad="none by itself",
)
NETWORK_TRANSMIT = Metric(
    name="network_transmit_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes sent since the run was attached, without loopback; no byte counts twice",
    source="as network_receive_megabytes",
    bad="none by itself",
)
NETWORK_RECEIVE_RATE = Metric(
    name="network_receive_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.NETWORK,
    meaning="bytes received per second",
    source="as network_receive_megabytes",
    bad="at the link's limit: remote data or gradients slow the job down",
)
NETWORK_TRANSMIT_RATE = Metric(
    name="network_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.NETWORK,
    meaning="bytes sent per second",
    source="as network_receive_megabytes",
    bad="at the link's limit: gradients or checkpoints slow the job down",
)
NETWORK_ERRORS = Metric(
    name="network_errors",
    kind=Kind.EVENTS,
    unit="errors",
    family=Family.NETWORK,
    meaning="packets with errors and dropped packets, in both directions, since the run was attached",
    source="as network_receive_megabytes",
    bad="rising: a bad cable, a full queue, a wrong MTU",
    only="once it has happened",
)
INFINIBAND_RECEIVE = Metric(
    name="infiniband_receive_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.FABRIC,
    meaning="bytes received per second on all InfiniBand and RoCE ports, RDMA included",
    source="/sys/class/infiniband/*/ports/*/counters/port_rcv_data (words of 4 bytes)",
    bad="at the link's limit: communication slows the training down",
)
INFINIBAND_TRANSMIT = Metric(
    name="infiniband_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.FABRIC,
    meaning="bytes sent per second on all InfiniBand and RoCE ports, RDMA included",
    source="/sys/class/infiniband/*/ports/*/counters/port_xmit_data (words of 4 bytes)",
    bad="at the link's limit: communication slows the training down",
)
