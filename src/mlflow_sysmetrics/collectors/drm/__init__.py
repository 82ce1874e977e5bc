"""What the collectors of AMD and Intel GPUs on Linux share: cards in /sys, and their use by the job in /proc.

`cards` lists them, `watched_gpus` selects those to watch and notices changes; `hwmon` reads the sensors of
one, its power and energy; `clients` reads the GPU use of the job's processes and assigns it to GPUs; `gpus`
combines all of it at a tick. What only one vendor has is in its collector, `amd_linux` or `intel_gpu_linux`.
"""

from __future__ import annotations
