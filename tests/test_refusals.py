"""Whoever asks for what cannot be gets one sentence, before anything is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running.commands.plan import plan
from running.commands.train import train
from running.commands.verify import verify
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from running.training.check_settings import check_settings
from running.training.rank_agreement import RankAgreement
from running.training.resolve import resolve
from tests.conftest import TINY, start

Config = Callable[..., dict[str, Any]]


_WITHOUT_DATA = [
    ("curriculum.keyframes.switch.weights.stdlib=-0.1", r"curriculum\.keyframes\.switch\.weights\.stdlib is -0\.1"),
    ("curriculum.keyframes.start.weights={readmes:0,stdlib:0}", r"keyframes\.start\.weights are all 0"),
    ("micro_batch=3", r"global_batch=8 sequences cannot be divided into micro-batches of micro_batch=3"),
    ("micro_batch=16", r"global_batch=8 sequences cannot be divided"),
    ("max_steps=0", r"max_steps is 0"),
    ("schedule.warmup_steps=12", r"schedule\.warmup_steps is 12"),
    ("schedule.shape=cos", r"schedule\.shape is 'cos': it must be one of cosine, linear, wsd, constant"),
    ("base_width=0", r"base_width is 0: it must be a whole number, 1 or more, or null"),
    ("base_width=wide", r"base_width is 'wide': it must be a whole number"),
    ("model.n_heads=3", r"model\.d_model is 32: it must be a multiple of model\.n_heads=3"),
    ("optimizer.lr=-1", r"optimizer\.lr is -1: it must be a number above 0"),
    ("optimizer._target_=os.system", r"_target_=os\.system may not be called from a config"),
    ("callbacks.samples._target_=subprocess.run", r"_target_=subprocess\.run may not be called"),
    (
        "optimizer._target_=gpt_lightning.verified_checkpoint.os.getcwd",
        r"_target_=gpt_lightning\.verified_checkpoint\.os\.getcwd may not",
    ),
    ("callbacks.checkpoints.keep=0", r"callbacks\.checkpoints\.keep is 0"),
    ("~callbacks.checkpoints", r"callbacks\.checkpoints is missing"),
    (
        "model.attention=flash",
        r"model\.attention=flash cannot run: flash needs a CUDA device, and the device is cpu",
    ),
    ("callbacks.samples.top_k=0", r"callbacks\.samples\.top_k is 0: it must be a whole number, 1 or more"),
    (
        "callbacks.samples.prompts=hello",
        r"callbacks\.samples\.prompts is 'hello': it must be a list of non-empty strings",
    ),
    ("+curriculum.foo=1", r"curriculum: .*unexpected keyword argument 'foo'"),
    ("+schedule.foo=1", r"there is no setting schedule\.foo"),
    ("+model.foo=1", r"model: .*unexpected keyword argument 'foo'"),
    ("curriculum.max_epochs=null", r"curriculum\.max_epochs is None: it must map sources"),
    ("curriculum.keyframes.start.weights=0.5", r"keyframes\.start\.weights is 0\.5: it must map sources"),
    ("seed=null", r"seed is None"),
    ("gradient_clip=-1", r"gradient_clip is -1"),
    ("data.workers=-1", r"data\.workers is -1"),
    ("data.verify=maybe", r"data\.verify is 'maybe': it must be true or false"),
    ("data.val_sequences=0", r"data\.val_sequences is 0"),
    ("trainer.accelerator=tpu", r"trainer\.accelerator is 'tpu'"),
    ("trainer.strategy=foo", r"foo"),
    ("callbacks.samples.every=0", r"callbacks\.samples\.every is 0: it must be a whole number, 1 or more"),
    ("trainer.precision=half", r"trainer\.precision is 'half'"),
    ("trainer.devices=0", r"trainer\.devices is 0"),
    ("trainer.compile=max", r"trainer\.compile is 'max': it must be true or false"),
    ("trainer.recompute=all", r"trainer\.recompute is 'all': it must be none or blocks"),
    (
        "trainer.loss_kernel=triton",
        r"trainer\.loss_kernel is triton, but Triton is not available: the device is cpu",
    ),
    ("model.attention=sdpa_flash", r"model\.attention=sdpa_flash cannot run: sdpa_flash needs a CUDA device"),
    ("trainer.deterministic=1", r"trainer\.deterministic is 1: it must be true or false"),
    ("trainer.num_nodes=0", r"trainer\.num_nodes is 0"),
    ("optimizer.betas=[2,0.9]", r"optimizer\.betas is \[2, 0\.9\]: it must be a list"),
    ("+optimizer.foo=1", r"there is no setting optimizer\.foo"),
    ("curriculum=ado data.workers=2", r"data\.workers is 2, but with curriculum\.ado the next batch depends"),
    ("trainer=fsdp trainer.precision=16-mixed", r"trainer\.precision is 16-mixed, whose gradient scaler does not"),
    (
        "~callbacks.validation callbacks.checkpoints.best=true",
        r"callbacks\.checkpoints\.best is true, but callbacks\.val",
    ),
    (
        "+callbacks.other={_target_:callbacks.Checkpoints,every:1,keep:1}",
        r"callbacks\.checkpoints is missing",
    ),
]
_WITH_DATA = [
    (
        "+curriculum.keyframes.start.weights.wiki=1",
        r"keyframes\.start\.weights\.wiki names wiki, which is neither a source nor a mix",
    ),
    ("model.vocab_size=500", r"model\.vocab_size is 500, smaller than the 512 tokens of tokenizer bpe_512"),
    ("curriculum.max_epochs.pydoc=0.001", r"curriculum\.max_epochs\.pydoc is 0\.001, and the plan draws"),
]


@pytest.mark.parametrize(("overrides", "message"), _WITHOUT_DATA)
def test_what_settings_alone_decide_is_refused_by_one_function_and_so_by_plan_py(
    overrides: str, message: str, tmp_path: Path
) -> None:
    folders = [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'nothing'}"]
    settings = compose_config("plan", [*TINY, *folders, "name=refused", "plan.device=cpu", *overrides.split(" ")])
    with pytest.raises(ValueError, match=message) as refusal:
        check_settings(RunConfig.of(settings), "cpu")
    assert len(str(refusal.value).splitlines()) == 1
    with pytest.raises(ValueError, match=f"^{re.escape(str(refusal.value))}$"):
        plan(settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("override", "message"), _WITH_DATA)
def test_what_data_decides_is_refused_before_anything_is_written(
    override: str, message: str, tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        resolve(RunConfig.of(tiny_config("name=refused", override)), RankAgreement())
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_train_plan_and_verify_check_the_settings_with_the_same_function(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("asked")

    for module in ("running.training.check_settings", "running.training.resolve", "running.commands.plan"):
        monkeypatch.setattr(f"{module}.check_settings", refuse)
    for command, call in (("train", train), ("plan", plan), ("verify", verify)):
        with pytest.raises(ValueError, match="asked"):
            call(compose_config(command, [*tiny_overrides, "model.dropout=0", "name=refused"]))
    assert not list((tmp_path / "runs").glob("*/*.*"))


def test_compiling_without_a_compiler_is_refused(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no_such_compiler --fast")
    with pytest.raises(
        ValueError, match=r"trainer\.compile is true, but the C\+\+ compiler no_such_compiler is not installed"
    ):
        check_settings(RunConfig.of(tiny_config("name=refused", "trainer.compile=true")), "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=1"], "there is no setting optimizer.lrr: did you mean optimizer.lr?"),
        (["experimnt=quickstart"], "there is no setting experimnt: did you mean experiment?"),
        (
            ["experiment=mixed"],
            "experiment=mixed: there is no such choice; conf/experiment has gpt2_5, local, ",
        ),
        (["curriculum.keyframes.setled.at=0.9"], "did you mean curriculum.keyframes.settled.at?"),
        (
            ["curriculum.keyframes.settled.weights.pydocs=1"],
            "yet: did you mean curriculum.keyframes.settled.weights.pydoc, or",
        ),
        (
            ["curriculum.max_epochs.stdlib=1"],
            "curriculum.max_epochs has no stdlib yet: add it with +curriculum.max_epochs.stdlib=….",
        ),
        (
            ["curriculum.mixes.base={c4: 1}"],
            "some of these names are not in curriculum.mixes.base yet: add each of them with",
        ),
        (
            ["optimizer.lr=[1e-3,2e-3]"],
            "optimizer.lr is [0.001, 0.002]: it must be a number; for a sweep, type -m optimizer.lr=0.001,0.002.",
        ),
        (["trainer.compile=[true]"], "trainer.compile is [True]: it must be true or false; for a sweep, type -m"),
        (["-m", "optimizer.lr=[1,2],3"], "optimizer.lr is [1, 2]: it must be a number; for a sweep"),
        (["-max_steps=60"], "settings are written without -: type max_steps=60."),
        (["--max_steps=60"], "settings are written without -: type max_steps=60."),
        (
            ["source=oth"],
            "there is no setting source: the curriculum names the sources, for example +curriculum.mixes.base.oth=1.",
        ),
        (["task=perplexity"], "there is no setting task in conf/train.yaml."),
        (["optimizer.lr=fast"], "optimizer.lr is 'fast': it must be a number like 0.002."),
        (["optimizer.lr=1,2"], "optimizer.lr=1,2 has several values: add -m after the script's name."),
        (["max_steps"], "'max_steps' is not a setting: settings have the form key=value."),
        (["-m", "optimizer.lr=1,2", "sed=3"], "there is no setting sed: did you mean seed?"),
        (["-m", "model=micro,macro"], "model=macro: there is no such choice; conf/model has gpt2_124m, "),
        (["-m", "optimizer.lr=1,fast"], "optimizer.lr is 'fast': it must be a number like 0.002."),
        (["+maxsteps=10"], "there is no setting maxsteps: did you mean max_steps?"),
        (["trainer.devices=auto"], "trainer.devices is 'auto': it must be a number like 1."),
        (["max_steps=[1"], "the command line cannot be read"),
        (
            ["callbacks.sample.every=3"],
            "there is no setting callbacks.sample.every: did you mean callbacks.samples.every?",
        ),
        (
            ["callbacks.weight_norm._target_=my.Norm"],
            "callbacks has no weight_norm yet: add it with +callbacks.weight_norm._target_=….",
        ),
        (["imports=[my_norm]"], "the config has no imports yet: add it with +imports=…."),
    ],
)
def test_a_typo_costs_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        check_command_line("train", arguments)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_refusal_shows_no_traceback() -> None:
    for overrides in (["optimizer.lrr=1"], ["model.n_heads=3", "data_dir=/nowhere"]):
        answer = start(overrides)
        assert answer.returncode == 1
        assert answer.stderr.startswith("error: ")
        assert "Traceback" not in answer.stderr


def test_mixed_curriculum_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"gpt2_chatml: c4, cosmopedia, alpaca, python\. Set data\.prepare=missing, or run first",
    ) as refusal:
        train(
            compose_config("train", ["experiment=mixed_curriculum", f"runs_dir={tmp_path}", f"data_dir={tmp_path}/d"])
        )
    lines = [line.strip() for line in str(refusal.value).splitlines()]
    for source in ("c4", "cosmopedia", "alpaca", "python"):
        assert f"python prepare.py source={source} tokenizer=gpt2_chatml data_dir={tmp_path}/d" in lines
    assert "experiment=quickstart" in lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--nonsense", "seed=1"], ["seed=1", "-m", "name=a", "optimizer.lr=1e-3,2e-3"]])
def test_flags_in_the_wrong_place_are_refused_in_one_sentence(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match="put flags such as -m before all settings") as refusal:
        check_command_line("train", arguments)
    assert len(str(refusal.value).splitlines()) == 1
