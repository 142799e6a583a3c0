"""Names that `_target_` had in earlier versions: configs and run directories that hold them keep working."""

RENAMED_TARGETS = {
    "callbacks.MetricsTable": "callbacks.CsvMetrics",
    "callbacks.ZeroShot": "callbacks.ZeroShotEvaluation",
}
"""Old dotted name -> the present one."""
