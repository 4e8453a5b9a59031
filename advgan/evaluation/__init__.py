"""Evaluation: success rates with their intervals, and pictures."""
