"""Lightning Loggers of a run: metrics.jsonl, TensorBoard files, the console and its log file."""
