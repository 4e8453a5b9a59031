"""Training: the step, the loop, and what makes a run survive."""
