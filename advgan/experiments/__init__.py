"""What each command does, from checked input to files."""
