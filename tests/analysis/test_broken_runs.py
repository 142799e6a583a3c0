"""Nothing in a folder of runs breaks the page that compares them."""

import json
import os
from pathlib import Path

import pytest

from analysis.comparison import Comparison, find_runs, read_runs
from analysis.comparison.run import RunState
from analysis.comparison.samples_section import samples_section
from analysis.run_reader import LoggedRun
from running.commands.report import report
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from tests.example_sweep import HOSTILE, edit_environment


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", b"model: [", "config.yaml is not YAML"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml"),
        ("config.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nmodel: {c: [*b, *b]}", "it contains an alias"),
        ("config.yaml", b"model: {}\nmax_steps: many", "max_steps='many'"),
        ("config.yaml", b"model: {n_layers: 1, max_seq_len: 8}\nmax_steps: 4\nglobal_batch: 2", "describes no model"),
        (
            "config.yaml",
            b"model: {vocab_size: 9, max_seq_len: 8, d_model: 1000000000000, n_layers: 1, n_heads: 1, d_ff: 1000000000000}\n"
            b"max_steps: 4\nglobal_batch: 2",
            "describes no model (RuntimeError",
        ),
        ("config.yaml", b"model: {n_layers: 1000000000, max_seq_len: 8}\nmax_steps: 4\nglobal_batch: 2", "n_layers"),
        ("config.yaml", b"[" * 100_000, "config.yaml is not YAML"),
        ("environment.json", b"[]", "environment.json does not record"),
        ("environment.json", b'{"tokenizer": "x", "data": {"c4": 3}}', "environment.json does not record"),
        ("environment.json", b"{", "environment.json is not JSON"),
        ("environment.json", b"[" * 100_000, "environment.json is not JSON"),
        ("metrics.jsonl", b"[" * 100_000 + b"\n", "1 of the 1 rows"),
        ("metrics.jsonl", b'{"step": "1"}\n{"step": true, "train/loss": "low"}\n[]\n{"step": -1}\n', "4 of the 4 rows"),
        ("metrics.jsonl", b'{"step": 12, "train/loss": 1' + b"0" * 400 + b"}\n", "1 of the 1 rows"),
        ("metrics.jsonl", b'{"step": 99}\n', "metrics.jsonl has step 99, but max_steps is 12"),
    ],
)
def test_a_broken_run_says_why(alone: Path, file: str, content: bytes, said: str) -> None:
    edit_environment(alone, model=None)  # as of an older version, whose sizes follow from its config
    (alone / file).write_bytes(content)
    (run,) = read_runs([alone])
    assert run.state is RunState.BROKEN
    assert said in run.note
    report({"log_dir": None, "mix_law": None, "runs": str(alone), "out_dir": str(alone)})
    assert (alone / "comparison.html").is_file()


def test_no_run_at_all_is_refused_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("no run")
    for runs in (["empty", "absent"], "README.md", "empty", "absent", "*", "lr_sweep/*"):
        with pytest.raises(ValueError, match="matches no run: it must be"):
            report({"log_dir": None, "mix_law": None, "runs": runs, "out_dir": None})
    for runs in (5, True, [], [3], [["a"]], {"a": 1}, "", [None]):
        with pytest.raises(ValueError, match=r"must be a path|matches no run"):
            report({"log_dir": None, "mix_law": None, "runs": runs, "out_dir": None})
    assert {path.name for path in tmp_path.rglob("*")} == {"empty", "README.md"}


def test_a_run_of_which_nothing_can_be_read_still_makes_a_page(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "config.yaml").unlink()
    report({"log_dir": None, "mix_law": None, "runs": [str(alone), str(alone.with_name("absent"))], "out_dir": None})
    out = capsys.readouterr().out
    assert "runs is ranked" in out
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
    arguments = quote_text_settings(argument.split())
    check_command_line("report", arguments)
    runs = compose_config("report", arguments)["runs"]
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
    assert LoggedRun(alone).responses == responses
    shown = samples_section(Comparison(read_runs([alone])))["prompts"]
    assert {prompt["prompt"]: prompt["by_step"][6] for prompt in shown} == {
        asked: [(0, response)] for asked, [(_, response)] in responses.items()
    }


def test_a_name_that_is_no_text_is_written(alone: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(alone.with_name("x")) + b"\xff"))
    alone.rename(strange)
    report({"log_dir": None, "mix_law": None, "runs": str(strange.with_name("x*")), "out_dir": str(strange)})
    assert "1 of 1 runs are compared" in (strange / "comparison.html").read_text(encoding="utf-8")
