"""Files that tell a job's owner how its preflight check and its run ended."""
