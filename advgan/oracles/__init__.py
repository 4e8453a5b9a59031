"""Classifiers that are asked: from a file, a folder or a module; as black boxes, served or local, counted."""
