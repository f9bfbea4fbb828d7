"""Bounds for soft scores: their mean, or their whole distribution."""
