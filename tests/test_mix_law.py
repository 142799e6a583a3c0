"""From the mixes to run to the best one: plan.py mix_design=, report.py mix_law=, and train.py with what they write."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data_modules import Curriculum, SourceShards
from mix_laws import design_mixes, read_mix_runs
from running.commands.plan import plan
from running.commands.report import report
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY, start
from tests.example_sweep import copy_of, edit_environment
from tests.synthetic_mix_runs import world

SOURCES = ("readmes", "stdlib", "pydoc", "docstrings")


@pytest.fixture(scope="module")
def mix_sweep(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and copies of it that tell of other mixes, and of the losses that a known law gives them."""
    folder = tmp_path_factory.mktemp("mixes") / "mix_sweep"
    places = [f"data_dir={tiny_data}", f"runs_dir={folder}", "name=trained"]
    train(compose_config("train", [*TINY, "val_every=12", *places]))
    truth = world(power=0.5)
    mixes = design_mixes(18, np.ones(4))
    noise = 0.005 * np.random.default_rng(0).normal(size=mixes.shape)
    for n, (mix, losses) in enumerate(zip(mixes, truth(mixes) + noise, strict=True)):
        tell(copy_of(folder / "trained", f"mix_{n:02}"), mix, losses)
    (folder / "trained").rename(folder.parent / "trained")
    return folder


def tell(run: Path, mix: np.ndarray, losses: np.ndarray, **settings: Any) -> None:
    """Let a run say that it drew another mix, and what came of it."""
    config = yaml.safe_load((run / "config.yaml").read_text()) | settings
    config["curriculum"]["keyframes"] = {"start": {"at": 0.0, "weights": dict(zip(SOURCES, mix.tolist(), strict=True))}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    *rows, last = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    for n, source in enumerate(SOURCES):
        sequences = last[f"mix/tokens/{source}"] / last[f"mix/epochs/{source}"]
        last[f"mix/tokens/{source}"] = mix[n] * last["tokens"]
        last[f"mix/epochs/{source}"] = mix[n] * last["tokens"] / sequences
        last[f"val/loss/{source}"] = losses[n]
    last["val/loss/mean"] = losses.mean()
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, last]))


def report_on(runs: Any, *more: str) -> None:
    report(compose_config("report", list(more)) | {"mix_law": str(runs)})


def test_shares_are_those_that_were_drawn(mix_sweep: Path, tiny_data: Path) -> None:
    runs = read_mix_runs(str(mix_sweep))
    assert runs.ratios == pytest.approx(design_mixes(18, np.ones(4))[:, [SOURCES.index(s) for s in runs.sources]])
    assert runs.validation == runs.sources
    assert runs.total == 12 * 8
    assert runs.max_seq_len == 32
    for source, count in runs.sequences.items():
        borders = SourceShards(tiny_data / "bpe_512" / source).train.sequences(32, whole=True)
        assert count == len(borders) - 1
    real = read_mix_runs(str(mix_sweep.parent / "trained"))
    assert real.ratios.sum() == pytest.approx(1)
    assert real.ratios * 96 == pytest.approx(np.round(real.ratios * 96))


def test_the_page_and_a_mix_that_trains(
    mix_sweep: Path, tmp_path: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report_on(mix_sweep, f"out_dir={tmp_path}", "mix.max_epochs=400")
    printed = capsys.readouterr().out
    assert "The law uses square roots of shares" in printed
    assert "less than a linear fit (p" in printed
    page = (tmp_path / "mix_law.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "The law uses square roots of shares" in page
    finished = start(
        [*tiny_overrides, "curriculum=best_mix", "name=best", "max_steps=4", "schedule.warmup_steps=1"],
        "--config-dir",
        str(tmp_path),
    )
    assert finished.returncode == 0, finished.stderr
    weights = yaml.safe_load((tmp_path / "curriculum" / "best_mix.yaml").read_text())["keyframes"]["start"]["weights"]
    run_dir = next(Path(o.partition("=")[2]) for o in tiny_overrides if o.startswith("runs_dir=")) / "best"
    trained = yaml.safe_load((run_dir / "config.yaml").read_text())["curriculum"]
    assert trained["keyframes"] == {"start": {"at": 0.0, "weights": weights}}
    assert sum(weights.values()) == pytest.approx(1)


def test_caps_follow_from_epochs_and_the_length_of_the_run(
    mix_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = read_mix_runs(str(mix_sweep))
    least = min(runs.sequences, key=lambda source: runs.sequences[source])
    tokens = 3 * runs.sequences[least] * 32 * 4  # a third of it, at four epochs
    others = f"+mix.weights.{least}=1"
    report_on(mix_sweep, f"out_dir={tmp_path}", f"mix.tokens={tokens}", "mix.closeness=0", others)
    assert f"Binding caps: {least} at 33.3 %" in capsys.readouterr().out
    weights = yaml.safe_load((tmp_path / "curriculum" / "best_mix.yaml").read_text())["keyframes"]["start"]["weights"]
    assert weights[least] == 0.3333


def test_runs_are_held_out_and_predicted(mix_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them is fitted to; the errors of the mean and of a line stand beside those of the law."""
    apart = mix_sweep / "mix_1[4-7]"
    runs = read_mix_runs(str(mix_sweep), held_out=str(apart))
    assert runs.held_out is not None
    names = [Path(name).name for name in (*runs.names, *runs.held_out.names)]
    assert names == [f"mix_{n:02}" for n in range(18)]
    assert len(runs.held_out.names) == 4
    whole = read_mix_runs(str(mix_sweep))
    assert np.concatenate([runs.losses, runs.held_out.losses]) == pytest.approx(whole.losses)
    settings = compose_config("report", [f"out_dir={tmp_path}"])
    report(settings | {"mix_law": str(mix_sweep), "held_out": str(apart)})
    printed = capsys.readouterr().out.splitlines()
    heads = [n for n, line in enumerate(printed) if line.startswith("validation")]
    assert "in the 95 % interval" in printed[heads[1]]
    measured = runs.held_out.losses
    line = runs.held_out.ratios @ np.linalg.lstsq(runs.ratios, runs.losses, rcond=None)[0]
    for n, source in enumerate(runs.validation):
        told = next(row.split() for row in printed[heads[1] :] if row.startswith(source))
        of_mean, of_line = (
            np.sqrt(np.mean((by[n] - measured[:, n]) ** 2)) for by in (runs.losses.mean(axis=0)[:, None], line.T)
        )
        assert [float(cell) for cell in told[2:4]] == pytest.approx([of_line, of_mean], abs=1e-4)
        assert float(told[1]) < of_line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["held_out=nowhere"], r"held_out: nowhere"),
        (["+mix.weights.c4=1"], r"mix.weights.c4 is unknown: it must be one of readmes"),
        (["+mix.prior.pydoc=-1"], r"mix.prior.pydoc is -1"),
        (["+mix.prior.pydoc=0"], r"mix.prior are all 0"),
        (["mix.closeness=-1"], r"mix.closeness is -1"),
        (["mix.max_epochs=0"], r"mix.max_epochs is 0"),
        (["mix.tokens=1e12"], r"4 epochs of .* give 0% of the"),
        (["runs=elsewhere"], r"set only one"),
    ],
)
def test_settings_that_cannot_be_are_refused(mix_sweep: Path, settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_on(mix_sweep, *settings)


def test_all_runs_and_those_of_others_cannot_be_held_out(mix_sweep: Path) -> None:
    with pytest.raises(ValueError, match=r"held_out=.* includes all of the 18 complete runs"):
        read_mix_runs(str(mix_sweep), held_out=str(mix_sweep))
    some_elsewhere = [str(mix_sweep / "mix_03"), str(mix_sweep.parent / "trained")]
    with pytest.raises(ValueError, match=r"held_out=.* includes .*trained: it must include only runs of mix_law="):
        read_mix_runs(str(mix_sweep), held_out=some_elsewhere)


def test_runs_that_do_not_belong_are_left_out_or_refused(mix_sweep: Path, tmp_path: Path) -> None:
    mix, losses = np.array([0.4, 0.3, 0.2, 0.1]), np.full(4, 3.0)
    runs = [Path(shutil.copytree(mix_sweep / f"mix_{n:02}", tmp_path / f"other_{n}")) for n in range(4)]
    longer, diverged, rate = runs[:3]
    tell(longer, mix, losses, max_steps=40)
    tell(diverged, mix, np.full(4, np.nan))
    names = [str(mix_sweep / "*"), str(longer), str(diverged)]
    read = read_mix_runs(names)
    assert len(read.names) == 18
    assert len(read.left_out) == 2
    assert "schedule length" in " ".join(read.left_out)
    assert "not finite" in " ".join(read.left_out)
    config = yaml.safe_load((rate / "config.yaml").read_text())
    config["optimizer"]["lr"] = 0.5
    (rate / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        ValueError, match=r"the runs differ in optimizer.lr \(0.002, 0.5\): they must differ only in their mix"
    ):
        read_mix_runs([str(mix_sweep / "*"), str(rate)])
    edit_environment(longer.parent / "other_3", git={"revision": "0" * 40})
    assert read_mix_runs([str(mix_sweep / "*"), str(runs[3])]).differences == ("git revision",)
    silent = runs[3] / "metrics.jsonl"
    silent.write_text(silent.read_text().replace("mix/tokens/", "mix/other/"))
    with pytest.raises(ValueError, match=r"metrics.jsonl lacks the drawn tokens"):
        read_mix_runs(str(runs[3]))


def test_a_design_is_written_as_choices_that_compose(
    tiny_config: Callable[..., dict[str, Any]],
    tiny_overrides: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = plan(compose_config("plan", [*tiny_overrides, "mix_design=12", "max_steps=100"]))
    assert list(named) == [f"mix_{n:02}" for n in range(12)]
    folder = Path(tiny_config()["runs_dir"]) / "quickstart_design"
    for name, weights in named.items():
        content = yaml.safe_load((folder / "curriculum" / f"{name}.yaml").read_text())
        curriculum = Curriculum(**content)
        assert curriculum.resolve(steps=100, tokens_per_step=256).weights(50) == pytest.approx(weights)
        assert sum(weights.values()) == pytest.approx(1)
        assert min(weights.values()) >= 0.0099
    printed = capsys.readouterr().out
    assert f"--config-dir {folder}" in printed
    assert f"curriculum={','.join(named)}" in printed
    assert "curriculum=mix_00 seed=1338,1339" in printed
    plan(compose_config("plan", [*tiny_overrides, "mix_design=9", "max_steps=100"]))
    assert len(list((folder / "curriculum").iterdir())) == 9
    with pytest.raises(ValueError, match="mix_design is 'many'"):
        plan(compose_config("plan", [*tiny_overrides, "mix_design=many"]))
    with pytest.raises(ValueError, match="it must be at least 8"):
        plan(compose_config("plan", [*tiny_overrides, "mix_design=5"]))


def test_a_mix_of_a_design_trains_as_the_plan_says(tiny_overrides: list[str], tmp_path: Path) -> None:
    """As a job of the printed command, and what it drew."""
    plan(compose_config("plan", [*tiny_overrides, "mix_design=9", "max_steps=12"]))
    folder = tmp_path / "runs" / "quickstart_design"
    finished = start([*tiny_overrides, "name=mix", "curriculum=mix_3"], "--config-dir", str(folder))
    assert finished.returncode == 0, finished.stderr
    runs = read_mix_runs(str(tmp_path / "runs" / "mix"))
    planned = yaml.safe_load((folder / "curriculum" / "mix_3.yaml").read_text())["keyframes"]["start"]["weights"]
    for source, share in zip(runs.sources, runs.ratios[0], strict=True):
        assert share == pytest.approx(planned[source], abs=2 / 96)
