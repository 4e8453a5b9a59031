"""The classifiers under attack, by name."""
