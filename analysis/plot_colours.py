"""Colours of all plots, without importing a plotting library."""

COLOURS = ("#1b2a5c", "#b5361c", "#2f8f83", "#8a6fc1", "#e0a526", "#9cc7e8")
"""From dark to light, so that they differ in greyscale too."""
