"""hardware=…: how a recipe is trained on a kind of GPU, and nothing of what it is."""

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from analysis.hours_and_loss_from_sizes import DEVICES, find_device
from running.commands.plan import plan
from running.commands.train import train
from running.config.compose import compose_config, flatten, group_choices
from running.config.resolvers import micro_batch_up_to
from running.config.run_config import RunConfig
from running.training.cost_estimate import estimate_peak_memory, planned_model, planned_optimizer, training_setup
from running.training.memory_estimate import peak_memory_bytes
from tests.conftest import ROOT
from tests.run_files import as_if_killed, assert_same_rows, metrics, saved_steps

PRESETS = group_choices("hardware")
ON_ONE = ["trainer.devices=1"]
ON_FOUR = ["trainer.devices=4", "trainer.strategy=fsdp"]
RECIPES = {"mixed_curriculum": ON_ONE, "rangeflow": ON_ONE, "gpt2_5": ON_FOUR}
CHOSEN = {"micro_batch", "trainer.precision", "trainer.compile", "model.attention"}


def composed(command: str, *overrides: str) -> dict[str, Any]:
    return compose_config(command, overrides)


@cache
def as_it_is(recipe: str) -> dict[str, Any]:
    return dict(flatten(composed("train", f"experiment={recipe}", *RECIPES[recipe])))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_fits_every_hardware(recipe: str, preset: str) -> None:
    """And stays the recipe that it is without."""
    config = composed("train", f"experiment={recipe}", f"hardware={preset}", *RECIPES[recipe])
    without, with_it = as_it_is(recipe), dict(flatten(config))
    changed = {key for key in with_it if key not in without or with_it[key] != without[key]}
    assert {key for key in changed if not key.startswith("hardware.")} <= CHOSEN
    assert without.keys() <= with_it.keys()
    trainer = config["trainer"]
    of_rank = config["global_batch"] // trainer["devices"]
    assert RunConfig.of(config).accumulation_steps * config["micro_batch"] == of_rank
    most = {"t4": 18, "a100": 42, "h100": 64, "h200": 128}[preset]
    assert config["micro_batch"] == max(n for n in range(1, most + 1) if of_rank % n == 0)
    assert config["micro_batch"] > most / 2  # the best that divides is not far from what was meant
    device = find_device(config["hardware"]["device"])
    assert device is DEVICES[preset.upper()]
    assert trainer["precision"] == ("bf16-mixed" if device.has_bf16 else "16-mixed")
    run = RunConfig.of(config)
    setup = training_setup(run, precision=trainer["precision"], device_type="cuda")
    if preset == "t4":  # where sharding is refused, in fp16
        setup = replace(setup, sharded=False)
    needed = peak_memory_bytes(planned_model(run), planned_optimizer(run), setup)
    assert needed < 0.75 * device.memory  # the allocator's gaps and CUDA itself want memory too


def test_without_a_preset_nothing_is_said_of_hardware() -> None:
    assert "hardware" not in composed("train")
    assert composed("plan")["plan"] == {"device": "A100", "mfu": 0.4, "price_per_hour": None}


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_typed_wins_over_a_preset(preset: str) -> None:
    typed: dict[str, Any] = {"micro_batch": 7, "trainer.precision": "32-true", "trainer.compile": preset == "t4"}
    typed |= {"model.attention": "sdpa", "plan.device": "L4", "plan.mfu": 0.3}
    overrides = [f"{key}={value}" for key, value in typed.items()]
    config = dict(flatten(composed("plan", *overrides, f"hardware={preset}", "experiment=rangeflow")))
    assert {key: config[key] for key in typed} == typed


@given(st.integers(1, 600), st.integers(1, 9), st.integers(1, 3), st.integers(1, 200))
def test_the_largest_micro_batch_that_divides(batch: int, devices: int, nodes: int, most: int) -> None:
    root = OmegaConf.create({"global_batch": batch, "trainer": {"devices": devices, "num_nodes": nodes}})
    chosen = micro_batch_up_to(most, _root_=root)
    of_rank, rest = divmod(batch, devices * nodes)
    dividing = [n for n in range(1, most + 1) if rest == 0 and of_rank % n == 0]
    assert chosen == (max(dividing) if dividing else most)


def test_a_batch_that_ranks_cannot_share_is_refused_as_ever() -> None:
    with pytest.raises(ValueError, match=r"micro-batches of micro_batch=18 on each of 4 ranks: set global_batch=72"):
        RunConfig.of(composed("train", "experiment=rangeflow", "hardware=t4", "trainer.devices=4"))
    for wrong in ("global_batch=-4", "trainer.devices=0", "global_batch=1.5"):
        with pytest.raises(ValueError, match=r"must be a whole number, 1 or more"):
            RunConfig.of(composed("train", "experiment=rangeflow", "hardware=t4", wrong))


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [f"data_dir={tmp_path / 'nothing'}", f"runs_dir={tmp_path / 'runs'}"]


@pytest.mark.parametrize(("preset", "tokens_per_second"), [("t4", 8_369), ("h100", 453e3)])
def test_a_recipe_takes_as_long_as_at_the_published_speed(
    preset: str, tokens_per_second: float, folders: list[str]
) -> None:
    content = plan(composed("plan", "experiment=rangeflow", f"hardware={preset}", *folders), silently=True)
    assert content["device"] == preset.upper()
    assert content["hours"] == pytest.approx(25_000 * 129_024 / tokens_per_second / 3600, rel=0.01)
    assert content["price"] is None


def test_a_price_is_that_of_all_devices(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["experiment=gpt2_5", "hardware=h100", *ON_FOUR, *folders]
    content = plan(composed("plan", *recipe, "plan.price_per_hour=2.5"))
    assert content["price"] == pytest.approx(content["hours"] * 4 * 2.5)
    said = " ".join(capsys.readouterr().out.split())
    assert f"price {content['price']:,.2f} at 2.5 per hour and device" in said
    assert "on 4 H100 at 39% MFU (as modded-nanogpt's PyTorch, 453 thousand tokens/s) in bf16-mixed" in said
    plan(composed("plan", *recipe, "plan.mfu=0.2"))
    said = " ".join(capsys.readouterr().out.split())
    assert "at 20% MFU in bf16-mixed" in said
    assert " price " not in said
    assert plan(composed("plan", *recipe, "plan.price_per_hour=1", "plan.device=cpu"), silently=True)["price"] is None


@pytest.mark.parametrize("wrong", ["-1", "two", ".nan", "true"])
def test_what_is_no_price(wrong: str, folders: list[str]) -> None:
    with pytest.raises(ValueError, match=r"plan\.price_per_hour is .*: it must be a number, 0 or more, or null"):
        plan(composed("plan", "experiment=rangeflow", f"plan.price_per_hour={wrong}", *folders))


def test_a_run_goes_on_on_other_hardware(tiny_overrides: list[str], tmp_path: Path) -> None:
    """The same run: only rounding differs, by the way the global batch is cut. In fp32, as a CPU knows no fp16."""
    here = ["trainer.precision=32-true", "trainer.compile=false", "model.dropout=0", "optimizer.fused=false"]
    settings = [s for s in tiny_overrides if not s.startswith("micro_batch")] + [*here, "global_batch=36", "name=run"]
    config = composed("train", *settings, "hardware=a100")
    assert config["micro_batch"] == 36
    train(config)
    run = as_if_killed(tmp_path / "runs" / "run", tmp_path / "moved", after=8)
    moved = composed("train", *settings, "hardware=t4", f"runs_dir={tmp_path / 'moved'}")
    assert moved["micro_batch"] == 18
    train(moved)
    assert math.isfinite(metrics(run)[-1]["train/loss"])
    assert saved_steps(run)[-1] == 12
    assert_same_rows(metrics(run, after=8), metrics(tmp_path / "runs" / "run", after=8), rel=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_of_a_recipe_says_what_it_takes(recipe: str) -> None:
    """The last column of its table, in GB, is plan.py's estimate."""
    page = (ROOT / "docs" / "recipes" / f"{recipe}.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split("|") for line in page.splitlines() if line.startswith("| `") and "GB" in line]
    assert len(rows) == len(PRESETS)
    for first, micro_batch, *_, memory in rows:
        preset, *more = re.findall("`(.+?)`", first)
        several = [] if recipe != "gpt2_5" else [*(more or ["trainer=fsdp"]), "trainer.devices=4"]
        config = composed("train", f"experiment={recipe}", f"hardware={preset}", *several)
        assert config["micro_batch"] == int(micro_batch)
        precision = config["trainer"]["precision"]
        assert (
            f"{estimate_peak_memory(RunConfig.of(config), precision=precision, device_type='cuda') / 1e9:.0f} GB"
            == memory.strip()
        )
