"""Numbers in the kernel's text files; one that was cut short is not believed."""

from __future__ import annotations

WORD = 2**64  #: the kernel counts in words: a number beyond is none of its own


def number_after(label: bytes, text: bytes) -> int | None:
    """Returns the count that follows `label` at the start of a line; None where there is none.

    Slicing one field out of /proc/meminfo or memory.stat costs a tenth of splitting all lines.

    Args:
        label: the field's name with what separates it from the number: ``b"MemTotal:"``, ``b"usage_usec "``.
        text: lines that each end with a newline; what has no end was cut off and is not believed.
    """
    if text.startswith(label):
        start = len(label)
    else:
        start = text.find(b"\n" + label)
        if start < 0:
            return None
        start += 1 + len(label)
    end = text.find(b"\n", start)
    try:
        number = int(text[start:end].split(None, 1)[0]) if end >= 0 else -1
    except (IndexError, ValueError):
        return None
    return number if 0 <= number < WORD else None


def count(text: bytes) -> int:
    r"""Returns the number that a file of one counter holds.

    Args:
        text: of the file; without its end of line it was cut off, and the number with it.

    Raises:
        ValueError: it is no count.
    """
    number = int(text) if text.endswith(b"\n") else -1
    if not 0 <= number < WORD:
        raise ValueError(f"{text[:40]!r} is no count")
    return number
