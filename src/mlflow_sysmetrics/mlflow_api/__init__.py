"""The tracking server: whether a training can rely on it, and files that say so."""
