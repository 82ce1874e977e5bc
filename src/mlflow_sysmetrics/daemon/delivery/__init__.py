"""How points reach the tracking server."""
