"""Which runs compare, how they rank, and that nothing in a folder of runs breaks the page."""

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml

import launch
from analysis.budget import flops_per_token
from analysis.comparison import Comparison, find_runs, read_runs
from analysis.comparison.charts import MOST_SHOWN, loss_figure
from analysis.comparison.run import Run, State
from analysis.comparison.samples import samples_beside_each_other
from analysis.comparison.settings import text_of
from analysis.run_record import RunRecord
from report import report
from tests.sweep import HOSTILE, HOSTILE_NAME, RATES, copy_of, edit_environment


@pytest.fixture(scope="module")
def comparison(sweep: Path) -> Comparison:
    return Comparison(read_runs([*find_runs(str(sweep / "*")).runs, sweep / "absent"]))


@pytest.fixture
def alone(sweep: Path, tmp_path: Path) -> Path:
    """A copy of one run, to be damaged."""
    shutil.copytree(sweep / "a", tmp_path / "a", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return tmp_path / "a"


def read(path: Path) -> Run:
    return read_runs([path])[0]


def names(runs: Iterable[Run]) -> list[str]:
    return [run.name for run in runs]


def test_every_run_is_in_its_state(comparison: Comparison) -> None:
    states = {run.name: run.state for run in comparison.runs}
    done = dict.fromkeys([*RATES, "longer", "other_tokenizer", HOSTILE_NAME], State.DONE)
    assert states == done | {
        "rotten": State.BROKEN,
        "no_config": State.BROKEN,
        "no_metrics": State.EMPTY,
        "unfinished": State.UNFINISHED,
        "absent": State.MISSING,
    }
    notes = {run.name: run.note for run in comparison.runs}
    assert notes["rotten"] == "1 of the 6 rows of metrics.jsonl cannot be read"
    assert notes["unfinished"] == "at step 6 of 12, and nobody is training it"
    assert "config.yaml cannot be read" in notes["no_config"]


def test_what_must_not_be_compared_is_not(comparison: Comparison) -> None:
    assert comparison.reasons["longer"] == [
        "other token budget (4,096 tokens, not 3,072 tokens)",
        "other schedule length (16 steps, not 12)",
    ]
    assert comparison.reasons["other_tokenizer"] == ["other tokenizer"]
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
        "a": ["other validation data (stdlib)"],
        "fewer": [
            "other validation data (3 sequences of 32 tokens of each source, not 4 sequences of 32 tokens of each source)"
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
        assert [cell.best for cell in cells] == [mean == min(means) for mean in means]
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
    assert "changed under way" in comparison.differing
    assert read(alone).settings["changed under way"] == (
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
    assert [cell.best for cell in cells] == [False, True]
    assert cells[0].beyond_noise is None
    report({"log_dir": None, "mix_law": None, "runs": [str(alone), str(sweep / "a")], "out_dir": str(alone)})
    assert "not finite" in (alone / "comparison.html").read_text()


def test_a_run_is_running_while_its_lock_is_held(alone: Path) -> None:
    with (alone / "lock").open("w") as lock:
        assert read(alone).state is State.DONE  # left over from a kill
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read(alone).state is State.RUNNING
        assert read(alone).note == "at step 12 of 12"
    assert read(alone).state is State.DONE


def test_hours_are_tokens_over_speed(alone: Path) -> None:
    rows = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    run = read(alone)
    hours, before = 0.0, 0
    for row in rows:
        hours += (row["step"] - before) * 8 * 32 / row["speed/tokens_per_s"] / 3600
        before = row["step"]
        assert run.hours_at(np.array([float(row["step"])])) == pytest.approx([hours])
    assert run.hours_at(np.array([0.0])) == [0.0]
    config = launch.compose_config("train", ["run_dir=x", "model.max_seq_len=32"])["model"]
    assert flops_per_token(config) != run.flops_per_token  # another model's
    model = {key.removeprefix("model."): value for key, value in run.settings.items() if key.startswith("model.")}
    assert run.flops_per_token == flops_per_token(model)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", b"model: [", "config.yaml is no YAML"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml"),
        ("config.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nmodel: {c: [*b, *b]}", "it holds an alias"),
        ("config.yaml", b"model: {}\nmax_steps: many", "max_steps='many'"),
        ("config.yaml", b"model: {n_layers: 1, max_seq_len: 8}\nmax_steps: 4\nglobal_batch: 2", "describes no model"),
        ("config.yaml", b"model: {n_layers: 1000000000, max_seq_len: 8}\nmax_steps: 4\nglobal_batch: 2", "n_layers"),
        ("config.yaml", b"[" * 100_000, "config.yaml is no YAML"),
        ("environment.json", b"[]", "environment.json does not say"),
        ("environment.json", b'{"tokenizer": "x", "data": {"c4": 3}}', "environment.json does not say"),
        ("environment.json", b"{", "environment.json is no JSON"),
        ("environment.json", b"[" * 100_000, "environment.json is no JSON"),
        ("metrics.jsonl", b"[" * 100_000 + b"\n", "1 of the 1 rows"),
        ("metrics.jsonl", b'{"step": "1"}\n{"step": true, "train/loss": "low"}\n[]\n{"step": -1}\n', "4 of the 4 rows"),
        ("metrics.jsonl", b'{"step": 12, "train/loss": 1' + b"0" * 400 + b"}\n", "1 of the 1 rows"),
        ("metrics.jsonl", b'{"step": 99}\n', "metrics.jsonl tells of step 99, and max_steps is 12"),
    ],
)
def test_a_broken_run_says_why(alone: Path, file: str, content: bytes, said: str) -> None:
    (alone / file).write_bytes(content)
    run = read(alone)
    assert run.state is State.BROKEN
    assert said in run.note
    report({"log_dir": None, "mix_law": None, "runs": str(alone), "out_dir": str(alone)})
    assert (alone / "comparison.html").is_file()


def test_no_run_at_all_is_refused_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("no run")
    for runs in (["empty", "absent"], "README.md", "empty", "absent", "*", "lr_sweep/*"):
        with pytest.raises(ValueError, match="names no run: it takes"):
            report({"log_dir": None, "mix_law": None, "runs": runs, "out_dir": None})
    for runs in (5, True, [], [3], [["a"]], {"a": 1}, "", [None]):
        with pytest.raises(ValueError, match=r"must be a path|names no run"):
            report({"log_dir": None, "mix_law": None, "runs": runs, "out_dir": None})
    assert {path.name for path in tmp_path.rglob("*")} == {"empty", "README.md"}


def test_a_run_of_which_nothing_can_be_read_still_makes_a_page(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "config.yaml").unlink()
    report({"log_dir": None, "mix_law": None, "runs": [str(alone), str(alone.with_name("absent"))], "out_dir": None})
    out = capsys.readouterr().out
    assert "no run is ranked" in out
    assert f"comparison:  {alone.with_name('comparison.html')}" in out
    assert "None of 2 runs could be compared." in alone.with_name("comparison.html").read_text()


def test_a_folder_stands_for_the_runs_in_it(sweep: Path, alone: Path) -> None:
    (alone.parent / "report").mkdir()
    (alone.parent / "comparison.html").write_text("a page")
    only_begun = alone.with_name("begun")
    (only_begun / "checkpoints").mkdir(parents=True)
    assert find_runs(str(alone.parent)) == ([alone, only_begun], 0)
    assert find_runs(str(alone.parent / "*")) == ([alone, only_begun], 1)  # the folder of reports is passed over
    assert find_runs([str(alone.parent), str(alone)]) == ([alone, only_begun], 0)
    (alone / "older" / "checkpoints").mkdir(parents=True)
    assert find_runs(str(alone)) == ([alone], 0)  # not what lies in it
    assert len(find_runs(str(sweep)).runs) == len(list(sweep.iterdir()))


@pytest.mark.parametrize(
    "argument",
    [
        "runs=runs/lr_sweep/*",
        "runs=runs/x_sweep/optimizer.lr=*,seed=1",
        "runs=[runs/a,runs/b]",
        "runs=runs/a out_dir=a=b",
    ],
)
def test_patterns_are_typed_as_they_are(argument: str) -> None:
    arguments = launch.quote_texts(argument.split())
    launch.check_command_line("report", arguments)
    runs = launch.compose_config("report", arguments)["runs"]
    assert runs == (["runs/a", "runs/b"] if "[" in argument else argument.split()[0].removeprefix("runs="))


def test_what_runs_say_is_inert_in_the_page(sweep: Path, tmp_path: Path) -> None:
    report({"log_dir": None, "mix_law": None, "runs": str(sweep / "*"), "out_dir": str(tmp_path)})
    text = (tmp_path / "comparison.html").read_text()
    assert HOSTILE not in text
    assert "<img" not in text.split("<script", 1)[0]
    assert "\u2028" not in text.split('<script type="application/json"', 1)[1].split("</script>")[0]
    assert "http-equiv" in text
    assert text.count("</script>") == 5  # three of data, Plotly, ours


def test_a_prompt_and_the_same_words_as_a_message_are_two(alone: Path) -> None:
    rows = [{"step": 6, "prompt": "Hello", "chat": chat, "response": f"chat: {chat}"} for chat in (False, True)]
    (alone / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    responses = {"Hello": [(6, "chat: False")], "Hello (as a message)": [(6, "chat: True")]}
    assert RunRecord(alone).responses == responses
    shown = samples_beside_each_other(Comparison(read_runs([alone])))["prompts"]
    assert {prompt["prompt"]: prompt["by_step"][6] for prompt in shown} == {
        asked: [(0, response)] for asked, [(_, response)] in responses.items()
    }


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


def test_a_name_that_is_no_text_is_written(alone: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(alone.with_name("x")) + b"\xff"))
    alone.rename(strange)
    report({"log_dir": None, "mix_law": None, "runs": str(strange.with_name("x*")), "out_dir": str(strange)})
    assert "1 of 1 runs are compared" in (strange / "comparison.html").read_text(encoding="utf-8")


def test_settings_are_said_in_few_digits() -> None:
    assert text_of(6e-4) == "0.0006"
    assert text_of(0.1 + 0.2) == "0.30000000000000004"
    assert text_of(None) == "null"
    assert text_of([0.9, 0.95]) == "[0.9, 0.95]"
