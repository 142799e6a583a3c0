"""What the commands share, below command_runner.py.

    config/       settings: composition, checks of the command line, job names, `--help`, the allow-list of `_target_`
    registration  one function for each kind of custom component: norm, optimizer, source reader, curriculum policy, …
    training/     one training run: its data, resume point, ranks and callbacks, from the first step to the last
    evaluation/   evaluate.py and generate.py: tasks, stored results, the interactive session
    sweeps/       multi-run sweeps: jobs as processes, state files, proposed mixes
    commands/     what each command does, one module per command

Each sub-package may import the entries above it; evaluation and sweeps do not import each other.

Only this package and the commands import Hydra and OmegaConf.
"""
