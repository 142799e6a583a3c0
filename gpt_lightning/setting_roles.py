"""The role of every setting of a training run: whether the setting affects the result, or only where and how the run is
executed.

Resuming, sweeps, TensorBoard, the comparison of ranks and the comparison of runs all read this one table.
"""

from enum import Enum
from typing import NamedTuple


class Role(Enum):
    """What a setting has an effect on."""

    PLACE = "names and folders of a run and its sweep, and how many jobs of the sweep run at once"
    START = "where this start begins, and when it stops"
    EXECUTION = "how the work is divided among processes and micro-batches, and where the data is"
    ROUNDING = "device, precision and kernels: the results differ by rounding"
    OBSERVATION = "what is logged, validated and saved; callbacks that change weights are recognised by their class"
    RESULT = "the weights, or the validation losses that are compared"


class Setting(NamedTuple):
    """A setting, or a section of settings with the same role."""

    role: Role
    is_fixed: bool = False
    """A run cannot be resumed with another value."""
    is_path: bool = False
    """The value is a path."""
    may_differ_by_rank: bool = False
    """Ranks on several machines may have different values, because the content of the folder is compared separately."""


_FOLDER = Setting(Role.PLACE, is_path=True, may_differ_by_rank=True)

SETTINGS: dict[str, Setting] = {
    "name": Setting(Role.PLACE),
    "runs_dir": _FOLDER,
    "run_dir": _FOLDER,
    "sweep_dir": _FOLDER,
    "jobs_at_once": Setting(Role.PLACE),
    "resume": Setting(Role.START, is_path=True),
    "max_hours": Setting(Role.START),
    "data_dir": Setting(Role.EXECUTION, is_path=True, may_differ_by_rank=True),
    "data.prepare": Setting(Role.EXECUTION),
    "data.verify": Setting(Role.EXECUTION),
    "data.workers": Setting(Role.EXECUTION),
    "micro_batch": Setting(Role.EXECUTION),
    "hardware": Setting(Role.EXECUTION),
    "trainer.devices": Setting(Role.EXECUTION),
    "trainer.num_nodes": Setting(Role.EXECUTION),
    "trainer.strategy": Setting(Role.EXECUTION),
    "trainer": Setting(Role.ROUNDING),
    "log_every": Setting(Role.OBSERVATION),
    "val_every": Setting(Role.OBSERVATION),
    "callbacks": Setting(Role.OBSERVATION),
    "logger": Setting(Role.OBSERVATION),
    "data.limit_tokens": Setting(Role.RESULT),
    "data.val_sequences": Setting(Role.RESULT),
    "seed": Setting(Role.RESULT, is_fixed=True),
    "imports": Setting(Role.RESULT, is_fixed=True),
    "model": Setting(Role.RESULT, is_fixed=True),
    "tokenizer": Setting(Role.RESULT, is_fixed=True),
    "tokenizer.name": Setting(Role.RESULT, is_fixed=True, is_path=True),
    "init_from": Setting(Role.RESULT, is_fixed=True, is_path=True, may_differ_by_rank=True),
    "branch": Setting(Role.RESULT, is_fixed=True),
    "branch.run": Setting(Role.RESULT, is_fixed=True, is_path=True),
    "global_batch": Setting(Role.RESULT, is_fixed=True),
    "base_width": Setting(Role.RESULT, is_fixed=True),
    "max_steps": Setting(Role.RESULT),
    "gradient_clip": Setting(Role.RESULT),
    "on_spike": Setting(Role.RESULT),
    "optimizer": Setting(Role.RESULT),
    "optimizer._target_": Setting(Role.RESULT, is_fixed=True),
    "schedule": Setting(Role.RESULT),
    "curriculum": Setting(Role.RESULT),
    "curriculum.ado.record": Setting(Role.RESULT, is_path=True),
}
"""Dotted name of a setting or section -> its role. For a setting in a section, the longest name counts."""


def find_setting(key: str) -> Setting:
    """The row of a setting. A setting that is not in the table decides the result.

    Args:
        key: dotted name.
    """
    name = key
    while name and name not in SETTINGS:
        name = name.rpartition(".")[0]
    return SETTINGS.get(name, Setting(Role.RESULT))


def has_role(key: str, *roles: Role) -> bool:
    """Whether a setting has one of these roles.

    Args:
        key: dotted name.
        roles: the roles.
    """
    return find_setting(key).role in roles
