"""Network: traffic and errors of the interfaces that lead out of this host."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

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
