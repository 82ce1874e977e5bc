"""mlflow_api is the one door to MLflow: checked on the syntax tree of every module."""

from __future__ import annotations

import ast
import functools

from syntax_trees import SOURCE, nodes, syntax_trees

# MLflow's module globals and private attributes that this package uses.
PRIVATE = {
    "_active_run_stack",
    "_active_experiment_id",
    "_last_active_run_id",
    "run_id_to_system_metrics_monitor",
    "_tracking_store_registry",
    "_request_auth_provider_registry",
    "_request_header_provider_registry",
    "_run_context_provider_registry",
    "_tracking_client",
    "_record_logged_model",
    "_use_tracking_uri",
    "active_run_obj",
}
FLUENT = "mlflow.tracking.fluent"
REQUESTS = {
    "http_request",
    "http_request_safe",
    "requests",
    "requests.Session",
    "HTTPConnection",
    "HTTPSConnection",
    "urlopen",
    "httpx",
}


def modules() -> list[tuple[str, ast.Module]]:
    return [(path.relative_to(SOURCE).as_posix(), tree) for path, tree in syntax_trees().items()]


@functools.cache
def names() -> dict[str, set[str]]:
    return {path: names_in(tree) for path, tree in modules()}


def names_in(tree: ast.Module) -> set[str]:
    """Returns every name that a module mentions: attributes, imports, variables, and strings."""
    found: set[str] = set()
    for node in nodes(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # as in getattr(module, "...")
    return found


def test_private_state_of_mlflow_is_touched_in_fluent_state_only() -> None:
    touching = {path for path, mentioned in names().items() if mentioned & (PRIVATE | {FLUENT})}
    assert touching == {"mlflow_api/fluent_state.py"}


def test_one_module_sends_requests_to_tracking_servers() -> None:
    """The session that bounds its answers is a class of requests, too. A webhook is not a tracking server."""
    sending = {path for path, mentioned in names().items() if mentioned & REQUESTS} - {"summary/alerts.py"}
    assert sending == {"mlflow_api/transport.py", "mlflow_api/bounded_answers.py"}


def test_daemon_and_command_line_do_not_import_mlflow() -> None:
    importing = {
        path
        for path, tree in modules()
        if path.startswith(("daemon/", "cli/", "preflight/", "runtime/", "machine/", "collectors/", "facts/"))
        for node in nodes(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlflow")
        or (isinstance(node, ast.Import) and {one.name.split(".")[0] for one in node.names} & {"mlflow"})
    }
    assert not importing
