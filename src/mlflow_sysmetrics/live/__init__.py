"""What runs do right now, in a terminal: read from journals or a server, drawn as lines of text."""

from __future__ import annotations
