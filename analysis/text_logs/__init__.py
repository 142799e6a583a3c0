"""Read text logs of training runs (`training_*.log`, also RangeFlow-GPT's), merge them, and report them as JSON and a
plot."""
