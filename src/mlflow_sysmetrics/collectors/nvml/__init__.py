"""NVIDIA's management library: how it is called, and the readings of each device.

`library` calls it and decides when to retry, `enumeration` lists and finds devices, `devices` reads the
chosen ones under guard. Every other module holds readings, or a part of one: something that a device may or
may not support.
"""

from __future__ import annotations
