"""The one door to MLflow: requests, outcomes, secrets, names, and MLflow's state in this process."""
