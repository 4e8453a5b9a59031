"""What is written about a run, an evaluation, a comparison, a table and an attack, as types."""
