"""GPUs of AMD and Intel as Linux shows them: cards and sensors in /sys, the own processes' use in /proc.

`cards`, `kfd`, `amd_devices` and `intel_devices` find them, and `roll_call` sees whether they are still the
same; `amd_gpu` and `intel_gpu` read one of them with `hwmon`, `energy_counter` and `energy_integral`;
`clients` and `fdinfo` follow the own processes, `gpu_processes` and `engine_time` tell what these use, and
`gpus` brings it together.
"""

from __future__ import annotations
