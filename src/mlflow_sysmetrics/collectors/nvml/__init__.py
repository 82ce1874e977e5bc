"""NVIDIA's management library: how it is asked, and what is read of each device.

`library` asks, `enumeration` lists and finds devices, `devices` reads the chosen ones, `watch` reads one of
them. Every other module is a reading or a part of one: one thing that a device may or may not support.
"""

from __future__ import annotations
