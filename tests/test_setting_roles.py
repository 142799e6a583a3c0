"""One table says which role a setting has; whatever depends on the role reads it there."""

from pathlib import Path
from typing import Any

import pytest

from analysis.comparison.run_settings import PATH_SETTINGS, leaves_results_unchanged
from gpt_lightning.setting_roles import SETTINGS, Role, find_setting, has_role
from running.config.compose import compose_config, flatten, group_choices
from running.config.path_and_name_settings import is_path
from running.config.quote_for_hydra import quote_text_settings
from running.sweeps.sweep_state import describe_other_run
from running.training.resume import changed_since
from running.training.start_and_end_messages import change_remarks, hyperparameters

OPTIONAL = {"imports", "hardware", "curriculum.ado.record"}  # rows of settings that conf/train.yaml alone does not have


def of_role(*roles: Role) -> set[str]:
    return {key for key in SETTINGS if has_role(key, *roles)}


@pytest.fixture(scope="module")
def composed() -> set[str]:
    """Dotted names of all settings that train.py has, with any experiment."""
    experiments = [[f"experiment={name}"] for name in group_choices("experiment")]
    return {key for overrides in ([], *experiments) for key, _ in flatten(compose_config("train", overrides))}


def is_covered(key: str, row: str) -> bool:
    return key == row or key.startswith(f"{row}.")


def test_every_setting_of_a_run_has_a_role(composed: set[str]) -> None:
    empty = {"data.limit_tokens", "logger"}  # sections without settings
    assert not [key for key in composed | empty if not any(is_covered(key, row) for row in SETTINGS)]


def test_every_role_is_that_of_a_setting(composed: set[str]) -> None:
    sections = {"data.limit_tokens", "logger"}
    known = composed | sections | OPTIONAL
    assert not [row for row in SETTINGS if not any(is_covered(key, row) for key in known)]


def test_the_longest_name_counts() -> None:
    assert find_setting("trainer.devices").role is Role.EXECUTION
    assert find_setting("trainer.precision").role is Role.ROUNDING
    assert find_setting("tokenizer.name").is_path
    assert not find_setting("tokenizer.model_vocab_size").is_path
    assert (
        find_setting("loggers.x")
        == find_setting("git.revision")
        == find_setting("named")
        == (Role.RESULT, *3 * (False,))
    )


def test_places_are_no_changes_of_a_run() -> None:
    settings = {"name": 1, "jobs_at_once": 1, "data_dir": 1, "resume": 1, "seed": 1}
    assert set(changed_since(settings, dict.fromkeys(settings, 2))) == {"data_dir", "resume", "seed"}


def test_only_what_decides_the_result_is_a_hyperparameter() -> None:
    settings = compose_config("train", ["micro_batch=1", "data.val_sequences=3", "branch.run=trunk", "branch.step=4"])
    shown = hyperparameters(settings)
    assert shown["data.val_sequences"] == 3
    assert (shown["branch.run"], shown["branch.step"]) == ("trunk", 4)
    assert not [key for key in shown if not has_role(key, Role.RESULT)]
    (said,) = change_remarks({"micro_batch": (2, 1), "trainer.devices": (1, 2)})
    assert said.startswith("also changed, without effect on what defines the run: micro_batch, trainer;")


def test_a_job_whose_work_is_divided_otherwise_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{micro_batch: 1, val_every: 3, max_hours: 1, data: {workers: 1}, seed: 1}")
    same: dict[str, Any] = {"micro_batch": 2, "val_every": 4, "max_hours": 2, "data": {"workers": 2}, "seed": 1}
    assert describe_other_run(tmp_path, same) is None
    other = describe_other_run(tmp_path, same | {"data": {"val_sequences": 3}})
    assert other == "its folder contains a run with other settings: data.val_sequences=None, not 3"


def test_the_places_of_a_run_are_no_axes_of_a_sweep() -> None:
    for key in of_role(Role.PLACE) - {"jobs_at_once"}:
        assert quote_text_settings(["-m", f"{key}=a,b"]) == ["-m", f'{key}="a,b"']
    assert quote_text_settings(["-m", "data_dir=a,b"]) == ["-m", "data_dir=a,b"]


def test_paths_are_paths_on_the_command_line() -> None:
    assert all(is_path(key) for key, setting in SETTINGS.items() if setting.is_path)
    assert not is_path("seed")


def test_runs_are_compared_without_their_places_and_paths() -> None:
    assert of_role(Role.PLACE) | {"data_dir", "resume"} == PATH_SETTINGS
    assert {key for key in SETTINGS if leaves_results_unchanged(key)} == of_role(
        Role.PLACE, Role.START, Role.EXECUTION, Role.OBSERVATION
    )
