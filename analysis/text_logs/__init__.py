"""Text logs of training runs (`training_*.log`, also RangeFlow-GPT's): read, merged, reported as JSON and a plot."""
