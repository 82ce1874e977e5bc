"""What a training team writes again in every repository: steps, epochs, trials, models."""
