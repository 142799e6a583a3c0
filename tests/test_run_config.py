"""A wrong setting of a run is found when the config is parsed, before torch or Lightning is imported."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from inspect import signature

import pytest
import torch

from gpt_lightning.model.part_registry import BACKENDS, FEED_FORWARDS, LOSS_KERNELS, NORMS, POSITIONS
from gpt_lightning.optim import MuonAdamW
from running.config.optimization_configs import OPTIMIZER_OPTIONS
from tests.conftest import ROOT

EARLY = "+callbacks.early._target_=callbacks.EarlyStopping"
WRONG = {
    "max_steps=0": "max_steps is 0",
    "jobs_at_once=-1": "jobs_at_once is -1",
    "max_hours=-2": "max_hours is -2",
    "gradient_clip=-1": "gradient_clip is -1",
    "on_spike=foo": "on_spike is 'foo'",
    "base_width=-5": "base_width is -5",
    "micro_batch=7": "global_batch=8 sequences cannot be divided",
    "resume=foo": "resume=foo is not a checkpoint",
    "branch.step=abc": "branch.step is 'abc'",
    "branch.step=8": "branch.step is 8, but branch.run is not set",
    "name=5": "name is 5",
    "data.workers=-1": "data.workers is -1",
    "data.limit_tokens=5": "data.limit_tokens is 5: it must map sources to numbers of tokens",
    "+data.limit_tokens.readmes=-1": "data.limit_tokens.readmes is -1",
    "curriculum=ado data.workers=1": "data.workers is 1, but with curriculum.ado",
    "curriculum.unit=foo": "curriculum.unit is 'foo'",
    "tokenizer.train_on=5": "tokenizer.train_on is 5: it must be a list of sources",
    "tokenizer.train_mb=-1": "tokenizer.train_mb is -1",
    "optimizer.lr=-1": "optimizer.lr is -1: it must be a number above 0",
    "optimizer.betas=[0.9,1]": "optimizer.betas is [0.9, 1]",
    "optimizer.weight_decay=-1": "optimizer.weight_decay is -1",
    "+optimizer.foo=1": "there is no setting optimizer.foo",
    "optimizer=muon +optimizer.nesterov=true": "there is no setting optimizer.nesterov",
    "optimizer=adamw_8bit +optimizer.fused=true": "there is no setting optimizer.fused",
    "optimizer._target_=foo.Bar": "_target_=foo.Bar may not be called from a config",
    "schedule.shape=foo": "schedule.shape is 'foo'",
    "schedule.warmup_steps=-3": "schedule.warmup_steps is -3",
    "schedule.final_ratio=2": "schedule.final_ratio is 2",
    "schedule.final_ratio=high": "schedule.final_ratio is 'high'",
    "+schedule.decay_share=0.1": "schedule.decay_share is 0.1: it must be null",
    "+schedule.foo=1": "there is no setting schedule.foo",
    "model.d_model=-1": "model.d_model is -1",
    "model.n_layers=true": "model.n_layers is True",
    "model.n_heads=5": "model.d_model is 128: it must be a multiple of model.n_heads=5",
    "model.norm=foo": "model.norm is 'foo': it must be one of layernorm, rmsnorm",
    "model.feed_forward=foo": "model.feed_forward is 'foo': it must be one of gelu, gelu_tanh, swiglu, relu2",
    "model.position=foo": "model.position is 'foo'",
    "model.attention=foo": "model.attention is 'foo': it must be one of manual, sdpa, ",
    "model.dropout=2": "model.dropout is 2",
    "+model.foo=1": "model: GPTConfig.__init__() got an unexpected keyword argument 'foo'",
    "trainer.precision=foo": "trainer.precision is 'foo'",
    "trainer.accelerator=foo": "trainer.accelerator is 'foo'",
    "trainer.loss_kernel=foo": "trainer.loss_kernel is 'foo': it must be one of torch, triton, auto",
    "trainer.strategy=foo": "trainer.strategy is 'foo'",
    "callbacks.samples=null": "callbacks.samples has no _target_",
    "callbacks.samples.temperature=-1": "callbacks.samples.temperature is -1",
    "callbacks.samples.prompts=hello": "callbacks.samples.prompts is 'hello'",
    "callbacks.checkpoints.keep=0": "callbacks.checkpoints.keep is 0",
    "callbacks.checkpoints.best=true ~callbacks.validation": "callbacks.validation, which finds the best one, is missing",
    f"{EARLY} +callbacks.early.patience=-1": "callbacks.early.patience is -1",
    f"{EARLY} +callbacks.early.patient=1": "there is no setting callbacks.early.patient: did you mean",
    "+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging +callbacks.ema.decay=1": "callbacks.ema.decay is 1",
}
PARSE = """
import json, sys
from running.config.compose import compose_config
from running.config.run_config import RunConfig
RunConfig.of(compose_config("train", ["experiment=quickstart"]))
answers = {}
for settings in json.load(sys.stdin):
    try:
        RunConfig.of(compose_config("train", ["experiment=quickstart", *settings.split()]))
    except ValueError as error:
        answers[settings] = str(error)
loaded = [name for name in ("torch", "lightning", "bitsandbytes") if name in sys.modules]
print(json.dumps([answers, loaded]))
"""


def test_wrong_settings_are_refused_before_torch_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(list(WRONG)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    answers, loaded = json.loads(done.stdout)
    assert [settings for settings in WRONG if settings not in answers] == []
    assert loaded == []
    for settings, sentence in WRONG.items():
        assert sentence in answers[settings]
        assert re.fullmatch(r"[^\n]+[.?]", answers[settings])


def test_each_name_of_a_part_can_be_imported() -> None:
    pytest.importorskip("triton")
    for registry in (NORMS, FEED_FORWARDS, POSITIONS, BACKENDS, LOSS_KERNELS):
        assert all(callable(part) or part.attend for part in registry.values())


def test_the_options_of_the_optimizers_are_those_of_their_classes() -> None:
    for name, optimizer in {
        "torch.optim.AdamW": torch.optim.AdamW,
        "gpt_lightning.optim.MuonAdamW": MuonAdamW,
    }.items():
        parameters = signature(optimizer).parameters
        defaults = {key: parameter.default for key, parameter in parameters.items() if key not in ("lr", "params")}
        ours = asdict(OPTIMIZER_OPTIONS[name]())
        assert ours | {"betas": tuple(ours["betas"])} == defaults
