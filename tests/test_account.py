"""What a run says of itself, where it stands among others."""

from collections.abc import Callable
from typing import Any

import pytest

from running.account import compared_by, hyperparameters

Config = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("job", "varied"),
    [
        ("optimizer.lr=0.003,seed=2", ["optimizer.lr", "seed"]),
        ("curriculum.keyframes.start.weights.stdlib=0.5", ["curriculum.keyframes.start.weights.stdlib"]),
        ("optimizer.betas=_0.9,0.95_,optimizer.weight_decay=0.2", ["optimizer.weight_decay"]),  # a list is no column
    ],
)
def test_the_axes_of_a_multirun_stand_first(tiny_config: Config, job: str, varied: list[str]) -> None:
    config = tiny_config()
    assert compared_by(config | {"run_dir": f"{config['sweep_dir']}/{job}"}) == varied


def test_a_group_that_is_swept_is_all_that_it_sets(tiny_config: Config) -> None:
    config = tiny_config()
    varied = compared_by(config | {"run_dir": f"{config['sweep_dir']}/model=micro"})
    assert "model.d_ff" in varied
    assert all(key.startswith("model.") for key in varied)


def test_a_run_alone_shows_what_runs_are_compared_by(tiny_config: Config) -> None:
    config = tiny_config()
    assert compared_by(config)[0] == "optimizer.lr"
    assert set(compared_by(config)) <= set(hyperparameters(config))
