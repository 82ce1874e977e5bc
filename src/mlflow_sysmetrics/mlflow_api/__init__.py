"""The package's door to MLflow: requests, outcomes, secrets, names, and MLflow's state in this process."""
