"""Pages, pictures and tables, made from records alone."""
