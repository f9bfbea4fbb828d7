"""Certified segmentation: which class every pixel keeps while the whole image moves in a ball."""
