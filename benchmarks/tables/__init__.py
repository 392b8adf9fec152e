"""One file a table: which cells it has, how one is measured, and how all are shown."""
