"""The ``certify`` command: one verb, one file; nothing heavy is imported before a verb runs."""
