"""What is written into Optuna's storage beside a study and its trials, so that their runs are found again."""

#: On a study: its run. On a trial: the run of the study that it was begun for.
PARENT = "mlflow_parent_run_id"
#: On a trial: its run.
RUN = "mlflow_run_id"
#: On a trial: the process that carries it out, see `processes`.
PROCESS = "mlflow_sysmetrics_process"
#: On a trial: what it has raised, or what was wrong with what it returned.
ERROR = "error"
#: On a study: the names of its objectives.
METRICS = "metrics"
