"""Names that `_target_` had in earlier versions. Configs and run directories that contain them keep working."""

RENAMED_TARGETS = {
    "callbacks.MetricsTable": "callbacks.CsvMetrics",
    "callbacks.ZeroShot": "callbacks.ZeroShotEvaluation",
}
"""Old dotted name -> new dotted name."""
