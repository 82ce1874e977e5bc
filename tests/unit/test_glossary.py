"""The classes of the daemon are named with the words of CONTRIBUTING.md and plain English."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from syntax_trees import SOURCE, nodes, syntax_trees

ROOT = Path(__file__).parents[2]
DAEMON = SOURCE / "daemon"
MOST_WORDS = 20

# Words of general English or of programming, used here in their usual sense. A word that needs an explanation
# belongs in the glossary instead.
PLAIN = {
    *(
        "acknowledged",
        "bisection",
        "buffer",
        "buffered",
        "client",
        "connection",
        "count",
        "counter",
        "damage",
        "deadline",
    ),
    *(
        "damaged",
        "delivery",
        "disk",
        "format",
        "growing",
        "index",
        "interval",
        "new",
        "newer",
        "smaller",
        "snapshot",
    ),
    *(
        "dropped",
        "end",
        "file",
        "flusher",
        "gap",
        "header",
        "launch",
        "line",
        "log",
        "memory",
        "missing",
        "no",
        "open",
    ),
    *(
        "outage",
        "late",
        "ownership",
        "process",
        "refused",
        "reader",
        "recovery",
        "replayed",
        "request",
        "resolution",
        "rest",
        "retries",
        "send",
    ),
    *(
        "size",
        "spilled",
        "state",
        "statistics",
        "status",
        "steps",
        "store",
        "thread",
        "tags",
        "tick",
        "total",
        "value",
        "lock",
        "watchdog",
        "writer",
    ),
}


def glossary() -> list[str]:
    """Returns the words of the table in the section "Words"."""
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("\n## Words\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (\w+) \|", section, re.MULTILINE)[1:]


def class_words() -> dict[str, list[str]]:
    """Returns the words of every class name of the daemon: of `_LogBudget`, log and budget."""
    found = {}
    for path in DAEMON.rglob("*.py"):
        for node in nodes(syntax_trees()[path]):
            if isinstance(node, ast.ClassDef):
                found[node.name] = [word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)]
    return found


def forms(word: str) -> set[str]:
    return {word, f"{word}s", f"{word}ed"}


def test_the_glossary_is_short() -> None:
    assert 0 < len(glossary()) <= MOST_WORDS


def test_the_glossary_covers_every_class_of_the_daemon() -> None:
    known = {form for word in {*glossary(), *PLAIN} for form in forms(word)}
    unknown = {name: set(words) - known for name, words in class_words().items() if set(words) - known}
    assert not unknown


def test_every_word_of_the_glossary_is_used() -> None:
    used = {word for words in class_words().values() for word in words}
    assert [word for word in glossary() if not forms(word) & used] == []


def test_no_plain_word_is_in_the_glossary() -> None:
    assert not PLAIN & set(glossary())
