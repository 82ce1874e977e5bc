"""Messages of commands in one line each; `test_transcripts` and `test_output` look at how they are wrapped."""

from __future__ import annotations

from mlflow_sysmetrics.cli import output

wrapping_columns = output.columns
output.columns = lambda: 2000
