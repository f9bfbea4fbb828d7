"""One module per group of seed systems; each returns rows and bars."""
