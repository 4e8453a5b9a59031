"""Classifiers under attack: loaded, checked, trained here by name, or queried as black boxes."""
