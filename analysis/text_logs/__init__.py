"""Read, merge and report text logs of training runs (`training_*.log`, also RangeFlow-GPT's), as JSON and a plot."""
