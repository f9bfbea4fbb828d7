"""One file per plot; each function takes the evidence and returns a ``reports.svg.Figure``."""
