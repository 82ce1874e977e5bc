"""Errors of psutil, in words."""

from __future__ import annotations

import psutil

from mlflow_sysmetrics.machine.reasons import words_for


def why_refused(function: str, error: Exception) -> str:
    """Returns why a function of psutil has no answer: "psutil.cpu_times: no permission"."""
    return f"psutil.{function}: {refusal(error)}"


def refusal(error: Exception) -> str:
    """Returns what is wrong, without messages of Python's: psutil's name processes, not reasons."""
    if isinstance(error, psutil.AccessDenied):
        return "no permission"
    if isinstance(error, psutil.NoSuchProcess):  # a zombie too
        return "the process has ended"
    return words_for(error) if isinstance(error, OSError) else "not supported on this machine"
