"""What the commands share, below cli.py.

    config/       settings: composing them, checking what was typed, `--help`, the allow-list of `_target_`
    training/     one training run: its data, resume point, ranks and callbacks, from the first step to the last
    sweeps/       multi-run sweeps: jobs as processes, job names, state files, proposed mixes
    registration  one call for each kind of part of the user's own: norm, optimizer, source reader, curriculum policy, …
    evaluation/   evaluate.py and generate.py: tasks, stored results, the interactive session

Hydra and OmegaConf are imported here and in the commands only.
"""
