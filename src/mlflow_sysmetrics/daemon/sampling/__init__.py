"""When to sample, and what a window is."""
