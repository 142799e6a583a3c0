"""Every YAML that ships composes, and what it describes can be built."""

from pathlib import Path

import pytest

import launch
from data_modules import Curriculum
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import cosine_schedule

CHOICES = [
    (group.name, path.stem)
    for group in sorted(launch.CONF.iterdir())
    if group.is_dir()
    for path in sorted(group.glob("*.yaml"))
]
VERB = {"source": "prepare"}  # the verb whose config has the group; train for all others


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=map("/".join, CHOICES))
def test_every_choice_composes(group: str, choice: str) -> None:
    config = launch.compose_config(VERB.get(group, "train"), [f"{group}={choice}"])
    if group == "source":
        source = config["sources"][choice]
        assert {"licence", "val_fraction"} < set(source)
        assert ("corpus" in source) != ("hub" in source)
    else:
        GPTConfig(**config["model"])
        Curriculum(**config["curriculum"])
        cosine_schedule(steps=config["max_steps"], **config["schedule"])
        launch.instantiate(config["optimizer"] | {"_partial_": True})
        for callback in config["callbacks"].values():
            launch.instantiate(callback)


@pytest.mark.parametrize("path", sorted(launch.CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_verb_composes(path: Path) -> None:
    assert launch.compose_config(path.stem)


@pytest.mark.parametrize("experiment", launch.group_choices("experiment"))
def test_an_experiment_trains_on_sources_that_exist(experiment: str) -> None:
    config = launch.compose_config("train", [f"experiment={experiment}"])
    assert set(Curriculum(**config["curriculum"]).sources) <= set(launch.group_choices("source"))
    assert config["name"] == experiment


def test_gpt2_124m_is_exact() -> None:
    import torch

    config = launch.compose_config("train", ["model=gpt2_124m", "tokenizer=gpt2"])
    with torch.device("meta"):
        assert GPT(GPTConfig(**config["model"])).n_parameters() == 124_439_808


def test_mixed_curriculum_keeps_alpaca_to_four_epochs() -> None:
    """52,002 records of 88 tokens each (99 % of them to train on), drawn as the shipped weights say."""
    import numpy as np

    config = launch.compose_config("train", ["experiment=mixed_curriculum"])
    curriculum = Curriculum(**config["curriculum"])
    resolved = curriculum.resolve(steps=config["max_steps"], tokens_per_step=129_024)
    drawn = resolved.weights_at(np.arange(config["max_steps"]))[:, curriculum.sources.index("alpaca")].sum() * 129_024
    assert 3.0 < drawn / (52_002 * 88 * 0.99) < curriculum.max_epochs["alpaca"]
