"""What plan.py foretells is what train.py then does."""

import json
import shutil
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from data_modules import corpora
from data_modules.corpora import FunctionCorpus
from data_modules.preparation import PreparationSettings, PreparationTarget, prepare_source
from gpt_lightning.checkpoint_folder import checkpoint_path
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.part_registry import FEED_FORWARDS
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.plan import plan
from running.commands.prepare import prepare
from running.commands.train import train
from running.config.compose import compose_config, group_choices
from running.config.run_config import RunConfig
from running.training.prepared_data import source_sizes
from tests.conftest import TINY
from tests.run_files import final_checkpoint, metrics

STEPS = 20  # two in each tenth
SMALL = [
    *(setting for setting in TINY if not setting.startswith(("max_steps", "val_every"))),
    f"max_steps={STEPS}",
    f"val_every={STEPS}",
    "callbacks.samples.every=100",
    "data.workers=0",
    "trainer.precision=32-true",
]
HUB = {  # name: what stands in for it, and how many of its tokens are taken; None: all
    "c4": (corpora.readmes, None),
    "cosmopedia": (corpora.pydoc, None),
    "alpaca": (corpora.docstrings, 240),  # chat, and so little that it is repeated
    "python": (corpora.stdlib, None),
    "fineweb": (corpora.pydoc, 1_500),  # 160 sequences of 32 tokens are three to five passes, as in gpt2_5
}


@pytest.fixture(scope="module")
def data_dir(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpora, and the beginnings of some documents under the names of the hub's."""
    folder: Path = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny_data / "bpe_512", folder / "bpe_512")
    tokenizer = load_tokenizer(folder / "bpe_512")
    for name, (corpus, tokens) in HUB.items():
        documents = [d[:300] if isinstance(d, str) else d for d in islice(corpus(), 60)]
        prepare_source(
            FunctionCorpus(partial(iter, documents), origin={"corpus": name}),
            PreparationTarget(name=name, tokenizer=tokenizer, folder=folder / "bpe_512" / name, licence="test"),
            PreparationSettings(val_fraction=0.1, limit_tokens=tokens),
        )
    return folder


@pytest.fixture
def settings(data_dir: Path, tmp_path: Path) -> list[str]:
    return [*SMALL, f"data_dir={data_dir}", f"runs_dir={tmp_path / 'runs'}"]


def planned(*overrides: str) -> dict[str, Any]:
    """What plan.py writes down."""
    config = compose_config("plan", overrides)
    plan(config)
    content: dict[str, Any] = json.loads((Path(config["run_dir"]) / "plan.json").read_text())
    return content


def assert_as_trained(content: dict[str, Any], run: Path) -> None:
    """The plan of a run of `STEPS` steps that logs every tenth, and what the ledger counted."""
    seen = final_checkpoint(run)["ledger"]["seen"]  # (sequences, loss-bearing tokens) of each source
    rows = metrics(run)
    assert set(content["sources"]) == set(seen)
    bearing = sum(tokens for _, tokens in seen.values())
    for name, source in content["sources"].items():
        sequences, tokens = seen[name]
        assert source["sequences"] == sequences
        assert rows[-1][f"mix/tokens/{name}"] == sequences * 32
        assert rows[-1][f"mix/epochs/{name}"] == source["epochs"] == sequences / source["unique_sequences"]
        assert source["loss_bearing"] == pytest.approx(tokens / bearing, rel=1e-12)
        assert source["tenths"][-len(rows) :] == [row.get(f"mix/realised/{name}", 0.0) for row in rows]
        assert source["loss_bearing_last_tenth"] == rows[-1][f"mix/realised_loss_bearing/{name}"]
    assert sum(source["sequences"] for source in content["sources"].values()) * 32 == content["tokens"]
    assert rows[-1]["tokens"] == content["tokens"] == STEPS * content["tokens_per_step"]


MORE_ALPACA = ["curriculum.mixes.target.alpaca=0.4", "curriculum.max_epochs.alpaca=0.3"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=mixed_curriculum", "global_batch=48", "micro_batch=24"],  # with less there is no Alpaca
        ["experiment=rangeflow", "optimizer=adamw"],
        ["experiment=gpt2_5", "~callbacks.hellaswag"],
        ["experiment=quickstart"],
        ["experiment=modern_micro"],
        ["experiment=mixed_curriculum", "curriculum=anneal", *MORE_ALPACA],
        ["experiment=mixed_curriculum", "curriculum=unimax"],
    ],
    ids=["mixed_curriculum", "rangeflow", "gpt2_5", "quickstart", "modern_micro", "redistribute", "spread"],
)
def test_a_run_draws_what_was_planned(overrides: list[str], settings: list[str], tmp_path: Path) -> None:
    """In the same folder, in which the plan has left nothing that disturbs."""
    content = planned(*settings, *overrides, "name=run")
    assert {path.name for path in (tmp_path / "runs" / "run").iterdir()} == {"plan.json", "plan.png"}
    train(compose_config("train", [*settings, *overrides, "name=run"]))
    assert_as_trained(content, tmp_path / "runs" / "run")


def test_a_run_that_is_begun_is_planned_as_it_goes_on(settings: list[str], tmp_path: Path) -> None:
    """Half of it is done, with a precision that was chosen where it began, and the rest is to be of another mix."""
    auto = [*settings, "experiment=quickstart", "name=run", "trainer.precision=auto", "curriculum.interpolation=step"]
    whole = planned(*auto)
    train(compose_config("train", auto))
    run = tmp_path / "runs" / "run"
    for step in (16, 20):
        checkpoint_path(run / "checkpoints", step).unlink()
    settled = "curriculum.keyframes.settled.weights.docstrings=0.9"
    half = planned(*auto, settled)
    assert half["from_step"] == 12
    assert half["precision"] == OmegaConf.load(run / "config.yaml").trainer.precision
    assert half["flops"] == whole["flops"] * 8 / 20
    assert half["sources"]["docstrings"]["sequences"] > whole["sources"]["docstrings"]["sequences"]
    train(compose_config("train", [*auto, settled]))
    assert_as_trained(half, run)
    assert planned(*auto, settled)["hours"] == 0  # it is done


def test_a_branch_is_planned_from_its_trunk_on(settings: list[str], tmp_path: Path) -> None:
    trunk = [*settings, "experiment=quickstart"]
    train(compose_config("train", [*trunk, "name=trunk", "max_steps=8"]))
    branch = [*trunk, "name=branch", f"branch.run={tmp_path / 'runs' / 'trunk'}", "branch.step=8"]
    branch += ["curriculum=constant", "+curriculum.mixes.base.c4=1", "curriculum.mixes.base.readmes=0"]
    content = planned(*branch)
    train(compose_config("train", branch))
    assert list(content["sources"]) == ["readmes", "stdlib", "pydoc", "docstrings", "c4"]
    assert content["sources"]["c4"]["sequences"] == 12 * 8 * 2 / 3
    assert_as_trained(content, tmp_path / "runs" / "branch")


def test_a_plan_builds_the_model_without_its_numbers_and_reads_of_text_only_how_much_there_is(
    settings: list[str], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_numbers(model: GPT, config: GPTConfig) -> None:
        build(model, config)
        assert all(parameter.is_meta for parameter in model.parameters())

    build = GPT.__init__
    monkeypatch.setattr(GPT, "__init__", refuse_numbers)
    options = [*settings, "experiment=mixed_curriculum", "name=run"]
    content = planned(*options)
    shutil.copytree(data_dir, tmp_path / "blank")
    for path in (tmp_path / "blank").rglob("train/tokens_*.npy"):
        if not path.with_name("mask_0000.npy").exists():  # of chat, where its conversations end
            tokens = np.load(path, mmap_mode="r+")
            tokens[:] = 0
            tokens.flush()
    assert planned(*options, f"data_dir={tmp_path / 'blank'}") == content
    (picture,) = (tmp_path / "runs" / "run").glob("*.png")
    assert picture.stat().st_size > 10_000
    assert matplotlib.image.imread(picture).shape == (990, 1210, 4)


class _Gated(nn.Module):
    """A feed-forward of the user's own."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool) -> None:
        super().__init__()
        self.up, self.gate = (nn.Linear(d_model, d_ff, bias=bias) for _ in range(2))
        self.out = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.sigmoid(self.gate(x)) * self.up(x))


def test_a_feed_forward_of_the_users_own_is_planned_as_it_is(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEED_FORWARDS, "gated", _Gated)
    gelu, gated = (
        planned(*settings, "experiment=quickstart", f"name={name}", f"model.feed_forward={name}")
        for name in ("gelu", "gated")
    )
    config = compose_config("train", [*settings, "experiment=quickstart", "model.feed_forward=gated"])
    model = GPT(GPTConfig(**config["model"], eot_id=0))
    more = gated["parameters"] - gelu["parameters"]
    assert gated["parameters"] == model.n_parameters()
    assert more == sum(p.numel() for block in model.blocks for p in block.feed_forward.gate.parameters())
    assert gated["flops"] - gelu["flops"] == 6 * more * gelu["tokens"]
    assert gated["checkpoint_bytes"] - gelu["checkpoint_bytes"] >= 3 * 4 * more
    assert gated["peak_memory_bytes"] - gelu["peak_memory_bytes"] >= 4 * 4 * more


def test_an_optimizer_without_an_entry_is_planned_by_a_trial_step(settings: list[str]) -> None:
    other = ["~optimizer.fused", "optimizer._target_=torch.optim.Adamax"]
    last = [
        *(f"~optimizer.{key}" for key in ("fused", "betas", "eps", "weight_decay")),
        "optimizer._target_=torch.optim.LBFGS",
    ]
    adamw, adamax, lbfgs = ([*settings, "experiment=quickstart", *more] for more in ([], [*other, "name=adamax"], last))
    assert planned(*adamax)["checkpoint_bytes"] == pytest.approx(planned(*adamw)["checkpoint_bytes"], rel=1e-3)
    with pytest.raises(ValueError, match="the size of LBFGS's state is unknown, because a trial step"):
        planned(*lbfgs)


@pytest.fixture
def unprepared(tmp_path: Path) -> list[str]:
    return [f"data_dir={tmp_path / 'nothing'}", f"runs_dir={tmp_path / 'runs'}"]


def test_the_default_experiment_holds_before_anything_is_prepared(unprepared: list[str]) -> None:
    content = planned("experiment=mixed_curriculum", *unprepared)
    assert content["not_prepared"] == list(content["sources"]) == ["c4", "cosmopedia", "alpaca", "python"]
    assert 3 < content["sources"]["alpaca"]["epochs"] < content["sources"]["alpaca"]["max_epochs"] == 4
    assert content["problems"] == []


def test_rangeflow_read_alpaca_more_than_seventy_times(unprepared: list[str]) -> None:
    content = planned("experiment=rangeflow", *unprepared)
    alpaca = content["sources"]["alpaca"]
    assert alpaca["epochs"] > 70
    assert 15_000 < alpaca["repeats_after"] < alpaca["limit_reached_after"] < 16_000  # soon after the switch
    assert content["problems"] == []  # on_exhausted=repeat


@pytest.mark.parametrize("curriculum", sorted({*group_choices("curriculum")} - {"quickstart", "mixed"}))
def test_mixed_curriculum_holds_with_every_curriculum_that_ships(curriculum: str, unprepared: list[str]) -> None:
    content = planned("experiment=mixed_curriculum", f"curriculum={curriculum}", *unprepared)
    assert content["problems"] == []
    assert all(s["epochs"] <= s["max_epochs"] for s in content["sources"].values() if s["max_epochs"])


def test_what_is_expected_of_alpaca_is_what_there_is(shared_data: Path, unprepared: list[str], tmp_path: Path) -> None:
    """5,000 of its 52,002 records, prepared: sequences of 1,024 tokens, and what of them bears loss."""
    made = tmp_path / "made"
    options = ["source=alpaca", f"path={shared_data / 'alpaca' / 'alpaca_5000.json'}", "tokenizer=gpt2_chatml"]
    prepare(compose_config("prepare", [*options, f"data_dir={made}", "workers=1"]))
    config = compose_config("train", ["experiment=mixed_curriculum", *unprepared])
    expected = source_sizes(RunConfig.of(config), ["alpaca"])["alpaca"]
    measured = source_sizes(RunConfig.of(config | {"data_dir": str(made)}), ["alpaca"])["alpaca"]
    assert (expected.is_expected, measured.is_expected) == (True, False)
    assert expected.sequences == pytest.approx(measured.sequences * 52_002 / 5_000, rel=0.03)
    assert expected.loss_bearing == pytest.approx(np.mean(measured.loss_bearing), rel=0.03)


def test_a_finished_run_does_not_refuse_another_plan(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the plan of a new run, and the finished one's folder stays as it is; a sweep still hears what training would say."""
    options = [*settings, "experiment=quickstart", "name=done", "max_steps=4", "val_every=4", "schedule.warmup_steps=1"]
    train(compose_config("train", options))
    assert plan(compose_config("plan", options))["from_step"] == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    for change, refusal in (
        ("optimizer.lr=0.1", "no steps remain for optimizer.lr=0.1"),
        ("seed=5", "was started with seed="),
        ("max_steps=3", "max_steps is 3, but "),
        ("max_steps=40", "change later weights only"),
    ):
        config = compose_config("plan", [*options, change])
        assert plan(config)["from_step"] == 0
        printed = capsys.readouterr().out
        assert "is complete. This is the plan of a new run, which needs another name=…: " in printed
        assert refusal in printed
        with pytest.raises(ValueError, match=refusal):
            plan(config, silently=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
