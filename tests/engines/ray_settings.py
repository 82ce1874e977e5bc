"""What Ray's own processes are told here."""

from __future__ import annotations

# Ray waits half a minute for its own processes; its clusters here are too small to wait for longer.
RAY = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_ENABLE_METRICS_COLLECTION": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
}
