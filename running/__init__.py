"""What the commands share, below cli.py.

    commands/     what each command does, one module per command
    config/       settings: composition, checks of the command line, `--help`, the allow-list of `_target_`
    training/     one training run: its data, resume point, ranks and callbacks, from the first step to the last
    sweeps/       multi-run sweeps: jobs as processes, job names, state files, proposed mixes
    registration  one function for each kind of custom component: norm, optimizer, source reader, curriculum policy, …
    evaluation/   evaluate.py and generate.py: tasks, stored results, the interactive session

Only this package and the commands import Hydra and OmegaConf.
"""
