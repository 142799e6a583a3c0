"""Names that `_target_` had in earlier versions. Configs and run directories that contain them keep working."""

RENAMED_TARGETS = {
    "callbacks.DietLog": "callbacks.SampleOrderLog",
    "callbacks.MetricsTable": "callbacks.CsvMetrics",
    "callbacks.SuddenEnd": "callbacks.KillAtStep",
    "callbacks.ZeroShot": "callbacks.ZeroShotEvaluation",
}
"""Old dotted name -> new dotted name."""
