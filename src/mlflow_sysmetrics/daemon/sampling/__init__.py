"""When to sample, and how ticks become points."""
