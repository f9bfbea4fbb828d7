"""Noise inside the network: what it is worth at the input, and the classifier that draws it."""
