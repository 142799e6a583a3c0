"""Names of the files in a run directory which say that a run ended before its last step."""

PRUNED = "pruned.json"
"""A sweep pruned the run (`callbacks.MedianPruning`): the step and the reason."""
ENDED_EARLY = "ended_early.json"
"""Another callback ended the run: the step, the reason and the settings of the callbacks."""
