"""The training process and its children."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

PROCESS_CPU = Metric(
    name="process_cpu_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.PROCESS,
    meaning=(
        "CPU time of this process and all its descendants, as a share of ONE core: 250 is two and a half "
        "cores"
    ),
    source=(
        "CPU clocks and /proc/<pid>/stat; children that have ended through their parent's cutime; psutil "
        "elsewhere"
    ),
    bad="near 100 with many CPUs: a single thread is the bottleneck",
)
PROCESS_RSS = Metric(
    name="process_memory_rss_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.PROCESS,
    meaning=(
        "resident memory of this process and all its descendants; shared pages count once for each process"
    ),
    source="/proc/<pid>/stat rss; psutil memory_info().rss elsewhere",
    bad="a steady rise: a leak in the training or in its data loaders",
)
PROCESS_USS = Metric(
    name="process_memory_uss_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.PROCESS,
    meaning=(
        "memory pages that only one of these processes uses: the amount that would be freed if they ended"
    ),
    source=(
        "/proc/<pid>/smaps_rollup Private_*, once a minute since it is expensive; psutil "
        "memory_full_info().uss elsewhere"
    ),
    bad="a rise in data loaders that only read: updates of reference counts copy shared pages",
)
PROCESS_THREADS = Metric(
    name="process_threads",
    kind=Kind.GAUGE,
    unit="threads",
    family=Family.PROCESS,
    meaning="threads of this process and all its descendants",
    source="/proc/<pid>/stat num_threads; psutil elsewhere",
    bad="far more than CPUs: threads compete for them; rising: threads leak",
)
PROCESS_OPEN_FILES = Metric(
    name="process_open_files",
    kind=Kind.GAUGE,
    unit="files",
    family=Family.PROCESS,
    meaning="open file descriptors of this process and all its descendants",
    source="/proc/<pid>/fd; psutil num_fds elsewhere",
    bad="rising: files, sockets or shared-memory tensors leak",
)
PROCESS_CHILDREN = Metric(
    name="process_children",
    kind=Kind.GAUGE,
    unit="processes",
    family=Family.PROCESS,
    meaning="living descendants of this process",
    source="parent ids in /proc/<pid>/stat; psutil children() elsewhere",
    bad="not equal to the number of workers: some have died, or are left over",
)
