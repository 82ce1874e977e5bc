"""Records trainings of frameworks that have a loop of their own: one module each, imported by its name."""
