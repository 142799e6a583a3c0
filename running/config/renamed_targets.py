"""Names that `_target_` had in earlier versions, so that old configs and run directories keep working."""

RENAMED_TARGETS = {
    "callbacks.MetricsTable": "callbacks.CsvMetrics",
    "callbacks.ZeroShot": "callbacks.ZeroShotEvaluation",
}
"""Old dotted name -> current dotted name."""
