"""AMD and Intel GPUs on Linux: cards and sensors in /sys, the job's own use of them in /proc.

`cards` and `kfd` list them, `watched_gpus` selects those to watch and notices changes; `amd_gpu` and
`intel_gpu` read one with `hwmon` and `energy`; `clients` reads the GPU use of the job's processes, and
`gpu_processes` and `engine_time` add it up per GPU; `gpus` combines all of it at a tick.
"""

from __future__ import annotations
