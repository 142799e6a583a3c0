"""Every YAML that ships composes, and what it describes can be built."""

from pathlib import Path

import pytest
import torch

from data_modules import Curriculum
from data_modules.corpora.record_fields import RecordFields
from gpt_lightning.evaluation import QUESTION_PROTOCOLS, QuestionsConfig
from gpt_lightning.evaluation.generated_text_quality import GenerationTask
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import learning_rate_schedule
from gpt_lightning.tokenizer import load_tokenizer
from running.config import allowed_targets
from running.config.command_configs import EvaluateConfig
from running.config.compose import CONF, compose_config, group_choices, read_choice
from running.config.run_config import RunConfig
from running.config.settings_parser import parse
from running.evaluation.task_config import ConversationsConfig, WritingConfig, read_task
from running.evaluation.task_loading import EvaluatedModel, load_tasks
from running.training.builders import build_schedule

CHOICES = [
    (group.name, path.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "task"  # of no command's defaults: evaluate.py reads them by name
    for path in sorted(group.glob("*.yaml"))
]
COMMAND = {"source": "prepare"}  # the command whose config has the group; train for all others


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=map("/".join, CHOICES))
def test_every_choice_composes(group: str, choice: str) -> None:
    config = compose_config(COMMAND.get(group, "train"), [f"{group}={choice}"])
    if group == "source":
        source = config["sources"][choice]
        assert {"licence", "val_fraction"} < set(source)
        assert ("corpus" in source) != ("hub" in source)
    else:
        GPTConfig(**config["model"], eot_id=0)
        Curriculum(**config["curriculum"])
        learning_rate_schedule(steps=config["max_steps"], **config["schedule"])
        allowed_targets.resolve_optimizer(config["optimizer"])
        for callback in config["callbacks"].values():
            allowed_targets.build_callback(callback)


@pytest.mark.parametrize("name", group_choices("task"))
def test_every_task_can_be_read(name: str) -> None:
    task = read_task(name)
    assert set(vars(task)) == set(read_choice("task", name))
    if isinstance(task, QuestionsConfig):
        assert task.protocol in QUESTION_PROTOCOLS
    elif isinstance(task, ConversationsConfig):
        assert RecordFields(task.fields).columns
    elif isinstance(task, WritingConfig):
        config = compose_config("evaluate", [f"tasks=[{name}]"])
        (opened,) = load_tasks(
            parse(EvaluateConfig, config), EvaluatedModel(load_tokenizer("gpt2_chatml"), max_seq_len=1024, run=None)
        )
        assert isinstance(opened, GenerationTask)
        assert len(opened) == task.samples * len(task.prompts)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_command_composes(path: Path) -> None:
    assert compose_config(path.stem)


@pytest.mark.parametrize("experiment", group_choices("experiment"))
def test_an_experiment_trains_on_sources_that_exist(experiment: str) -> None:
    config = compose_config("train", [f"experiment={experiment}"])
    assert set(Curriculum(**config["curriculum"]).sources) <= set(group_choices("source"))
    assert config["name"] == experiment


@pytest.mark.parametrize(
    ("model", "n_parameters"),
    [
        ("gpt2_124m", 124_439_808),
        ("gpt2_350m", 354_823_168),
        ("gpt2_774m", 774_030_080),
        ("gpt2_1558m", 1_557_611_200),
        ("rangeflow_124m", 124_439_808),
        ("gpt2_5_124m", 162_148_608),
        ("modern_124m", 162_148_608),
    ],
)
def test_published_models_are_exact(model: str, n_parameters: int) -> None:
    config = compose_config("train", [f"model={model}", "tokenizer=gpt2"])
    with torch.device("meta"):
        assert GPT(GPTConfig(**config["model"], eot_id=0)).n_parameters() == n_parameters


def test_mixed_curriculum_keeps_alpaca_to_four_epochs() -> None:
    """52,002 records of 88 tokens each (99 % of them to train on), drawn as the shipped weights say."""
    import numpy as np

    config = compose_config("train", ["experiment=mixed_curriculum"])
    curriculum = Curriculum(**config["curriculum"])
    resolved = curriculum.resolve(steps=config["max_steps"], tokens_per_step=129_024)
    drawn = resolved.weights_at(np.arange(config["max_steps"]))[:, curriculum.sources.index("alpaca")].sum() * 129_024
    assert 3.0 < drawn / (52_002 * 88 * 0.99) < curriculum.max_epochs["alpaca"]


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["experiment=quickstart"], 50),
        (["experiment=quickstart", "max_steps=20"], 1),
        (["experiment=local"], 50),
        (["experiment=mixed_curriculum"], 1750),
        (["experiment=mixed_curriculum", "max_steps=20"], 1),
        (["experiment=rangeflow"], 1750),
        (["experiment=gpt2_5"], 4000),
        (["experiment=quickstart", "schedule.warmup_steps=0.5", "max_steps=20"], 10),
        (["experiment=quickstart", "schedule.warmup_steps=0.9", "max_steps=2"], 1),
        (["experiment=quickstart", "schedule.warmup_steps=1"], 1),
    ],
)
def test_a_warm_up_may_be_a_share_of_the_run(overrides: list[str], steps: int) -> None:
    """A shortened trial needs max_steps alone; what is written into config.yaml are steps."""
    config = compose_config("train", overrides)
    assert config["schedule"]["warmup_steps"] == steps
    assert type(config["schedule"]["warmup_steps"]) is int
    build_schedule(RunConfig.of(config))


@pytest.mark.parametrize("max_steps", [2, 5, 300])
def test_a_sweep_can_be_made_shorter(max_steps: int) -> None:
    config = compose_config("train", ["experiment=lr_sweep", "optimizer.lr=1e-3", "seed=1", f"max_steps={max_steps}"])
    assert config["schedule"]["warmup_steps"] == max_steps // 15
