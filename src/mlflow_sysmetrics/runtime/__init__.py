"""Clocks, threads, bounded calls, background readings, back-off and process identity."""
