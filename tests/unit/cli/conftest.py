"""Messages of commands in one line each: how they are wrapped is for test_output.py and test_transcripts.py."""

from __future__ import annotations

from mlflow_sysmetrics.cli import output

output._FEWEST_COLUMNS = 2000
