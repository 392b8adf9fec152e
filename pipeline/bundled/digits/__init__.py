"""Training of the bundled class-conditional model and its judge."""
