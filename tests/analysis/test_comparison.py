"""Which runs compare, how they rank, and what they are called."""

import fcntl
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml

from analysis.comparison import Comparison, find_runs, read_runs
from analysis.comparison.loss_charts import MOST_SHOWN, loss_figure
from analysis.comparison.run import Run, RunState
from analysis.comparison.run_settings import setting_text
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.model_size import build_meta_model, flops_per_token
from running.commands.report import report
from tests.example_sweep import HOSTILE_NAME, RATES, copy_of, edit_environment


@pytest.fixture(scope="module")
def comparison(sweep: Path) -> Comparison:
    return Comparison(read_runs([*find_runs(str(sweep / "*")).runs, sweep / "absent"]))


def read(path: Path) -> Run:
    return read_runs([path])[0]


def names(runs: Iterable[Run]) -> list[str]:
    return [run.name for run in runs]


def test_every_run_is_in_its_state(comparison: Comparison) -> None:
    states = {run.name: run.state for run in comparison.runs}
    done = dict.fromkeys([*RATES, "longer", "other_tokenizer", HOSTILE_NAME], RunState.DONE)
    assert states == done | {
        "rotten": RunState.BROKEN,
        "no_config": RunState.BROKEN,
        "no_metrics": RunState.EMPTY,
        "unfinished": RunState.UNFINISHED,
        "absent": RunState.MISSING,
    }
    notes = {run.name: run.note for run in comparison.runs}
    assert notes["rotten"] == "1 of the 6 rows of metrics.jsonl cannot be read"
    assert notes["unfinished"] == "at step 6 of 12, and no process is training it"
    assert "config.yaml cannot be read" in notes["no_config"]


def test_what_must_not_be_compared_is_not(comparison: Comparison) -> None:
    assert comparison.reasons["longer"] == [
        "different token budget (4,096 tokens, not 3,072 tokens)",
        "different schedule length (16 steps, not 12)",
    ]
    assert comparison.reasons["other_tokenizer"] == ["different tokenizer"]
    assert not any(comparison.reasons[name] for name in (*RATES, HOSTILE_NAME, "unfinished"))
    assert set(names(comparison.ranked)) == {*RATES, HOSTILE_NAME}
    assert set(names(comparison.comparable)) == {*RATES, HOSTILE_NAME, "unfinished", "no_metrics"}


def test_other_validation_data_is_another_basis(sweep: Path, alone: Path) -> None:
    data = json.loads((alone / "environment.json").read_text())["data"]
    edit_environment(alone, data=data | {"stdlib": data["stdlib"] | {"fingerprint": "0"}})
    fewer = copy_of(alone, "fewer")
    edit_environment(fewer, data=data)
    config = yaml.safe_load((fewer / "config.yaml").read_text())
    config["data"]["val_sequences"] = 3
    (fewer / "config.yaml").write_text(yaml.safe_dump(config))
    comparison = Comparison(read_runs([alone, fewer, *(sweep / name for name in "abcd")]))
    reasons = {name.rpartition("/")[2]: said for name, said in comparison.reasons.items() if said}
    assert reasons == {
        "a": ["different validation data (stdlib)"],
        "fewer": [
            "different validation data (3 sequences of 32 tokens of each source, not 4 sequences of 32 tokens of each source)"
        ],
    }


def test_what_differs_is_found_and_nothing_else(sweep: Path) -> None:
    comparison = Comparison(read_runs([sweep / name for name in "abcd"]))
    assert comparison.differing == ["optimizer.lr", "seed"]
    assert comparison.short_names == {"optimizer.lr": "lr", "seed": "seed"}
    assert [candidate.name for candidate in comparison.candidates] == ["lr=0.001", "lr=0.004", "lr=0.016"]
    assert [names(candidate.runs) for candidate in comparison.candidates] == [["a", "b"], ["c"], ["d"]]


def test_the_ranking_is_what_the_rows_say(sweep: Path) -> None:
    """By hand, from the last rows of metrics.jsonl."""
    comparison = Comparison(read_runs([sweep / name for name in "abcd"]))
    last = {name: json.loads((sweep / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in "abcd"}
    for key in ("val/loss/mean", "val/perplexity/pydoc", "val/bits_per_byte/stdlib"):
        a, b, c, d = (last[name][key] for name in "abcd")
        means = [(a + b) / 2, c, d]
        cells = comparison.column(key)
        assert [cell.mean for cell in cells] == pytest.approx(means)
        assert [cell.difference for cell in cells] == pytest.approx([mean - min(means) for mean in means])
        assert [cell.lowest for cell in cells] == [mean == min(means) for mean in means]
        noise = comparison.noise("val/loss/pydoc" if "pydoc" in key else key)  # a perplexity is tested by its loss
        assert noise is not None
        assert noise.degrees == 1
        best = means.index(min(means))
        assert cells[0].deviation == pytest.approx(abs(a - b) / math.sqrt(2))
        assert (cells[1].deviation, cells[2].deviation) == (None, None)
        assert [cell.p_value is None for cell in cells] == [n == best for n in range(3)]


def test_without_repeats_no_difference_is_called_real(sweep: Path) -> None:
    comparison = Comparison(read_runs([sweep / name for name in "acd"]))
    noise = comparison.noise("val/loss/mean")
    assert noise is not None
    assert (noise.degrees, noise.deviation) == (0, None)
    assert {cell.beyond_noise for cell in comparison.column("val/loss/mean")} == {None}


def test_a_run_that_repeats_another_to_the_seed_is_not_counted_again(sweep: Path, alone: Path) -> None:
    comparison = Comparison(read_runs([sweep / "a", sweep / "b", alone]))
    (twin,) = comparison.twins
    assert twin.endswith("/a")
    assert [len(candidate.runs) for candidate in comparison.candidates] == [2]


def test_a_setting_that_changed_under_way_makes_a_run_no_repeat(sweep: Path, alone: Path) -> None:
    changes = {"optimizer.lr": [0.1, 0.001], "run_dir": ["x", "y"], "versions.torch": ["1", "2"]}
    (alone / "changes.jsonl").write_text(json.dumps({"after_step": 4, "changes": changes}) + "\n")
    comparison = Comparison(read_runs([sweep / "b", alone]))
    assert [len(candidate.runs) for candidate in comparison.candidates] == [1, 1]
    assert "changed during the run" in comparison.differing
    assert read(alone).settings["changed during the run"] == (
        "optimizer.lr from 0.1 to 0.001 after step 4; versions.torch from 1 to 2 after step 4"
    )


def test_a_loss_that_is_no_number_ranks_last_and_makes_no_noise(sweep: Path, alone: Path) -> None:
    text = (alone / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    rows[-1] |= {key: math.inf for key in rows[-1] if key.startswith("val/")}
    (alone / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = (alone / "config.yaml").read_text()
    (alone / "config.yaml").write_text(config.replace("lr: 0.001", "lr: 9.0"))
    comparison = Comparison(read_runs([alone, sweep / "a", sweep / "b"]))
    cells = comparison.column("val/loss/mean")
    assert [cell.lowest for cell in cells] == [False, True]
    assert cells[0].beyond_noise is None
    report({"log_dir": None, "mix_law": None, "runs": [str(alone), str(sweep / "a")], "out_dir": str(alone)})
    assert "not finite" in (alone / "comparison.html").read_text()


def test_a_run_is_running_while_its_lock_is_held(alone: Path) -> None:
    with (alone / "lock").open("w") as lock:
        assert read(alone).state is RunState.DONE  # left over from a kill
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read(alone).state is RunState.RUNNING
        assert read(alone).note == "at step 12 of 12"
    assert read(alone).state is RunState.DONE


def test_hours_are_tokens_over_speed(alone: Path) -> None:
    rows = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    run = read(alone)
    hours, before = 0.0, 0
    for row in rows:
        hours += (row["step"] - before) * 8 * 32 / row["speed/tokens_per_s"] / 3600
        before = row["step"]
        assert run.hours_at(np.array([float(row["step"])])) == pytest.approx([hours])
    assert run.hours_at(np.array([0.0])) == [0.0]


def test_sizes_of_a_model_are_as_recorded_or_as_its_config_says(alone: Path) -> None:
    run = read(alone)
    section = {key.removeprefix("model."): value for key, value in run.settings.items() if key.startswith("model.")}
    model = build_meta_model(GPTConfig(**section, eot_id=0))
    assert (run.n_parameters, run.flops_per_token) == (model.n_parameters(), flops_per_token(model))
    edit_environment(alone, model=None)  # of an older version
    assert (read(alone).n_parameters, read(alone).flops_per_token) == (run.n_parameters, run.flops_per_token)
    edit_environment(alone, model={"parameters": 5, "flops_per_token": 7})  # a part that only its user has
    assert (read(alone).n_parameters, read(alone).flops_per_token) == (5, 7)


def test_curricula_that_differ_in_much_are_called_by_their_directories(sweep: Path, tmp_path: Path) -> None:
    """Not one of them by a piece of its config and the other by the directory of one seed."""
    keyframes = {"static": {"start": {"at": 0.0, "weights": {"base": 0.6, "target": 0.4}}}}
    keyframes["abrupt"] = {
        "start": {"at": 0.0, "weights": {"base": 1.0}},
        "switch": {"at": 0.6, "weights": {"target": 1.0}},
    }
    for name, frames in keyframes.items():
        for seed, run in ((1, "a"), (2, "b")):
            copy = tmp_path / f"curriculum=study_{name},seed={seed}"
            shutil.copytree(sweep / run, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
            config = yaml.safe_load((copy / "config.yaml").read_text())
            config["curriculum"] |= {"keyframes": frames, "interpolation": "step" if len(frames) > 1 else "linear"}
            (copy / "config.yaml").write_text(yaml.safe_dump(config))
    candidates = Comparison(read_runs(find_runs(str(tmp_path)).runs)).candidates
    assert {c.name for c in candidates} == {"curriculum=study_static", "curriculum=study_abrupt"}
    assert all(len(c.runs) == 2 for c in candidates)


def test_of_forty_runs_the_best_are_drawn_at_first(sweep: Path, tmp_path: Path) -> None:
    text = (sweep / "a" / "config.yaml").read_text()
    for n in range(40):
        shutil.copytree(sweep / "a", tmp_path / f"{n}", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
        (tmp_path / f"{n}" / "config.yaml").write_text(text.replace("lr: 0.001", f"lr: 0.0{n + 10}"))
    comparison = Comparison(read_runs(find_runs(str(tmp_path / "*")).runs))
    assert len(comparison.candidates) == 40
    figure, _ = loss_figure(comparison)
    assert len({trace["legendgroup"] for trace in figure["data"]}) == 40
    assert len({trace["legendgroup"] for trace in figure["data"] if trace["visible"] is True}) == MOST_SHOWN
    report({"log_dir": None, "mix_law": None, "runs": str(tmp_path / "*"), "out_dir": str(tmp_path)})
    assert (tmp_path / "comparison.html").stat().st_size < 6e6


def test_settings_are_said_in_few_digits() -> None:
    assert setting_text(6e-4) == "0.0006"
    assert setting_text(0.1 + 0.2) == "0.30000000000000004"
    assert setting_text(None) == "null"
    assert setting_text([0.9, 0.95]) == "[0.9, 0.95]"
