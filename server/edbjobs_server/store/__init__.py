"""What is on disk: one SQLite file, one writer thread, reader threads."""
