"""A small text classifier that shows the training kit: ``python -m mlflow_sysmetrics.examples train``."""
