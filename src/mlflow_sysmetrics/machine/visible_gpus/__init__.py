"""Which GPUs are watched: those the program sees, by each vendor's rules, or those the user asks for."""
