"""Shows the progress of each job, and why it failed.

Usage: python show.py JOBS
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import wrap

from mlflow_sysmetrics.preflight import read_status


def lines(directory: Path) -> list[str]:
    """Returns lines about the job of a directory: its state, run, error and failed attempts."""
    try:
        status = read_status(directory)
    except FileNotFoundError:
        return [f"{directory.name}: submitted"]
    except ValueError as error:
        return [f"{directory.name}: unknown", f"  {error}"]
    said = [f"{directory.name}: {status.stage} at {status.timestamp:%H:%M:%S} UTC"]
    if status.run_id:
        said.append(f"  run {status.run_id} in experiment {status.experiment_name}")
    if status.error:
        reason = f"{status.error_type}, step {status.step}: {status.error}"
        said += wrap(reason, width=80, initial_indent="  ", subsequent_indent="  ")
    for attempt in status.attempts:
        if attempt.error:
            said.append(
                f"  {attempt.at:%H:%M:%S} attempt {attempt.n}: {attempt.error} ({attempt.seconds:.1f} s)"
            )
    return said


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for job in sorted(one for one in Path(sys.argv[1]).iterdir() if one.is_dir()):
        print("\n".join(lines(job)))
