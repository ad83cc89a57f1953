"""A real vision service on this machine: open classifiers behind a cloud vendor's dialect."""
