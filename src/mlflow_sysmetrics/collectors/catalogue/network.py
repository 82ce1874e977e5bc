"""Network: bytes and trouble of the interfaces that lead out of this host."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

NETWORK_RECEIVE = Metric(
    name="network_receive_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes received since the run was attached, without loopback and without counting twice",
    source="/proc/net/dev, interfaces chosen by /sys/class/net; psutil.net_io_counters elsewhere",
    bad="none by itself",
)
NETWORK_TRANSMIT = Metric(
    name="network_transmit_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes sent since the run was attached, without loopback and without counting twice",
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
    bad="at the line's limit: remote data or gradients hold the job up",
)
NETWORK_TRANSMIT_RATE = Metric(
    name="network_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.NETWORK,
    meaning="bytes sent per second",
    source="as network_receive_megabytes",
    bad="at the line's limit: gradients or checkpoints hold the job up",
)
NETWORK_ERRORS = Metric(
    name="network_errors",
    kind=Kind.EVENTS,
    unit="errors",
    family=Family.NETWORK,
    meaning="packets with errors and packets dropped, both ways, since the run was attached",
    source="as network_receive_megabytes",
    bad="rising: a bad cable, a full queue, a wrong MTU",
    only="when it happens",
)
INFINIBAND_RECEIVE = Metric(
    name="infiniband_receive_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.FABRIC,
    meaning="bytes received per second on all InfiniBand and RoCE ports, RDMA included",
    source="/sys/class/infiniband/*/ports/*/counters/port_rcv_data (words of 4 bytes)",
    bad="at the line's limit: communication holds the training up",
)
INFINIBAND_TRANSMIT = Metric(
    name="infiniband_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.FABRIC,
    meaning="bytes sent per second on all InfiniBand and RoCE ports, RDMA included",
    source="/sys/class/infiniband/*/ports/*/counters/port_xmit_data (words of 4 bytes)",
    bad="at the line's limit: communication holds the training up",
)
