"""What the host IS, as tags: found once per process, in the background, each fact behind a guard.

To add a fact, write a function that yields its tags in `fact_list` (or, if the operating systems differ, one
function of the same name in `linux`, `macos` and `windows`) and add it to `FACTS`.
"""

from mlflow_sysmetrics.facts.discovery import HostFacts, host_facts

__all__ = ["HostFacts", "host_facts"]
