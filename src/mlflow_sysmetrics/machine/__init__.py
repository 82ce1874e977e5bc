"""The machine as one argument: its files, commands, CPUs, control groups and GPUs."""
