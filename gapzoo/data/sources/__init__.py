"""What fills an archive: one file a source, found by its registered name."""
