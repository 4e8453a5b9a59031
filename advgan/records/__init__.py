"""What is written about a run, an evaluation and an attack, as types."""
