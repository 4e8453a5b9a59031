"""Classifiers under attack: loaded, checked, trained here by name, or asked as black boxes."""
