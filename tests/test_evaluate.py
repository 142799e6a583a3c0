"""The command that judges: figures against those of training and of another library, interrupted, on two ranks, and refused."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.convert import to_hf
from gpt_lightning.evaluation import log_likelihood
from gpt_lightning.jsonl_reader import read_rows
from gpt_lightning.tokenizer import load_tokenizer
from running.commands import evaluate as command
from running.commands.train import train
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from running.evaluation import resumable_task_runner
from tests.conftest import TINY, start_command


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was validated on all of every split."""
    runs = tmp_path_factory.mktemp("judged")
    settings = [*TINY, f"data_dir={tiny_data}", f"runs_dir={runs}", "name=run", "data.val_sequences=null"]
    settings += ["trainer.precision=32-true"]  # as evaluate.py computes; a CPU may train in bf16
    train(compose_config("train", [*settings, "model.max_seq_len=64"]))
    return runs / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be judged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def judged(run: Path, *more: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The figures by (task, metric), as they stand in evaluation.json."""
    report = command.evaluate(compose_config("evaluate", quote_text_settings([f"run={run}", *more])))
    return {(result["task"], result["metric"]): result for result in report["results"]}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HellaSwag in miniature, in the original schema, one record of which cannot be asked."""
    path = tmp_path_factory.mktemp("records") / "hellaswag.jsonl"
    words = ["def", "return", "the", "class", "import", "value", "of", "a"]
    draw = np.random.default_rng(7)

    def text(n: int) -> str:
        return " ".join(draw.choice(words, size=n))

    records = [
        {"activity_label": "Python", "ctx_a": text(5), "ctx_b": text(2), "ctx": text(7)}
        | {"endings": [text(3) for _ in range(4)], "label": str(draw.integers(4))}
        for _ in range(25)
    ]
    records[3]["endings"][2] = " "
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_perplexity_is_the_one_of_training(run: Path) -> None:
    """With the stride of whole windows, on the same sequences, the figures are those of the run's last validation."""
    last = read_rows(run / "metrics.jsonl")[-1]
    figures = judged(run)
    for source in ("readmes", "stdlib", "pydoc", "docstrings", "mean"):
        for key in ("loss", "perplexity", "bits_per_byte"):
            value = figures[f"perplexity/{source}", key]["value"]
            # an error of the loss is one of the logarithm of the perplexity
            assert value == pytest.approx(last[f"val/{key}/{source}"], rel=1e-4 if key == "perplexity" else 1e-5)
    report = json.loads((run / "evaluation" / "step_00000012" / "evaluation.json").read_text())
    assert {result.get("data", {}).get("fingerprint") for result in report["results"]} > {None}
    for result in report["results"]:
        assert result["low"] < result["value"] < result["high"]


@pytest.mark.parametrize("stride", [64, 23])
def test_perplexity_is_the_one_of_transformers(run: Path, tiny_data: Path, tmp_path: Path, stride: int) -> None:
    transformers = pytest.importorskip("transformers")
    text = tmp_path / "text.txt"
    text.write_text((Path(command.__file__).read_text() + "ünïcödé → ok\n") * 2, encoding="utf-8")
    figures = judged(run, f"data={text}", f"stride={stride}")
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    to_hf(load_model(run), tmp_path / "hf", format="llama", tokenizer=tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    ids = [tokenizer.eot_id, *tokenizer.encode(text.read_text(encoding="utf-8")), tokenizer.eot_id]
    nats, scored = 0.0, 0
    with torch.inference_mode():
        while (
            scored < len(ids) - 1
        ):  # as in the Hugging Face guide to perplexity: windows, and -100 where nothing is scored
            new = stride if scored else 64
            end = min(scored + new, len(ids) - 1)
            begin = max(0, scored + new - 64)
            window = torch.tensor([ids[begin : end + 1]])
            labels = window.clone()
            labels[:, : scored - begin + 1] = -100
            nats += float(theirs(window, labels=labels).loss) * (end - scored)
            scored = end
    assert figures["perplexity/text.txt", "loss"]["value"] == pytest.approx(nats / scored, rel=1e-5)
    n_bytes = len(text.read_bytes())
    assert figures["perplexity/text.txt", "bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / n_bytes)


def test_a_question_that_cannot_be_asked_is_named(
    run: Path, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = judged(run, "tasks=[hellaswag]", f"path={questions}")
    assert figures["hellaswag", "acc"]["n"] == 24
    chances = {metric: figure.get("chance") for (_, metric), figure in figures.items()}
    assert chances == {"acc": 0.25, "acc_norm": 0.25, "acc_bytes": 0.25, "gold_bits_per_byte": None}
    assert figures["hellaswag", "acc"]["left_out"] == ["hellaswag.jsonl, line 4: answer 2 is empty"]
    said = capsys.readouterr().out
    assert "skipped records: 1, the first: hellaswag.jsonl, line 4: answer 2 is empty" in said
    assert re.search(r"acc_norm +0\.\d{4} .* 0\.2500\n", said)
    assert re.search(r"gold_bits_per_byte +\d+\.\d{4} +[\d.]+ to [\d.]+ *\n", said)
    assert "24 examples, data " in said
    rows = read_rows(run / "evaluation" / "step_00000012" / "hellaswag.jsonl")
    assert len(rows) == 24
    assert sum(row["acc"] for row in rows) / 24 == figures["hellaswag", "acc"]["value"]
    assert all(row["nats"][row["chosen"]["acc"]] == min(row["nats"]) for row in rows)


@pytest.mark.parametrize("batch_tokens", [1, 333])
def test_the_size_of_a_batch_changes_nothing(run: Path, questions: Path, batch_tokens: int) -> None:
    asked = ["tasks=[hellaswag,perplexity]", f"path={questions}", "limit=20"]
    one, other = (judged(run, *asked, f"batch_tokens={n}", f"out_dir={run / str(n)}") for n in (8192, batch_tokens))
    assert one.keys() == other.keys()
    for key, figure in one.items():
        assert other[key]["value"] == pytest.approx(figure["value"], rel=1e-5)


def test_stopped_it_goes_on_where_it_was(run: Path, questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["tasks=[hellaswag]", f"path={questions}", "batch_tokens=100"]
    straight = judged(run, *asked, f"out_dir={run / 'straight'}")
    real, calls = log_likelihood.score_batch, []

    def dying(model: Any, requests: Any) -> Any:
        calls.append(len(requests))
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(model, requests)

    monkeypatch.setattr(resumable_task_runner, "score_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        judged(run, *asked)
    assert not (run / "evaluation" / "step_00000012" / "evaluation.json").exists()
    before = sum(calls[:9])
    with (run / "evaluation" / "step_00000012" / "hellaswag.scores.0.jsonl").open("a") as torn:
        torn.write("[0, [1.")
    gone_on = judged(run, *asked)
    assert sum(calls[10:]) == 96 - before
    assert {key: figure["value"] for key, figure in gone_on.items()} == pytest.approx(
        {key: figure["value"] for key, figure in straight.items()}
    )
    assert not list(run.glob("evaluation/*/*.scores.*"))


def test_nothing_is_taken_over_from_another_model(run: Path, questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither scores that were left half-way, nor the figures of a report in the same folder."""
    early, late = (run / "checkpoints" / f"step_{step:08}.pt" for step in (4, 12))
    asked = ["tasks=[hellaswag]", f"path={questions}", "batch_tokens=100"]
    straight = judged(run, *asked, f"checkpoint={late}", f"out_dir={run / 'straight'}")
    judged(run, "limit=3", f"checkpoint={early}", f"out_dir={run / 'shared'}")
    real, calls = log_likelihood.score_batch, []

    def dying(model: Any, requests: Any) -> Any:
        calls.append(requests)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(model, requests)

    monkeypatch.setattr(resumable_task_runner, "score_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        judged(run, *asked, f"checkpoint={early}", f"out_dir={run / 'shared'}")
    figures = judged(run, *asked, f"checkpoint={late}", f"out_dir={run / 'shared'}")
    assert {key: figure["value"] for key, figure in figures.items()} == pytest.approx(
        {key: figure["value"] for key, figure in straight.items()}
    )
    written = json.loads((run / "shared" / "evaluation.json").read_text())["results"]
    assert {result["task"] for result in written} == {"hellaswag"}


def test_two_ranks_judge_as_one(run: Path, questions: Path) -> None:
    asked = [f"run={run}", "tasks=[hellaswag,perplexity]", f"path={questions}", "batch_tokens=200"]
    done = start_command("evaluate.py", [*asked, "devices=2", f"out_dir={run / 'two'}"])
    assert done.returncode == 0, done.stderr
    one = judged(run, *asked[1:])
    two = json.loads((run / "two" / "evaluation.json").read_text())["results"]
    assert len(two) == len(one)
    for figure in two:
        assert figure["value"] == pytest.approx(one[figure["task"], figure["metric"]]["value"], rel=1e-5)
    assert (run / "two" / "hellaswag.jsonl").read_text() != ""


def test_a_limit_is_said_where_something_is_left_away(run: Path, questions: Path) -> None:
    figures = judged(run, "tasks=[hellaswag,python]", f"path={questions}", "limit=25")
    assert figures["hellaswag", "acc"]["protocol"] == "harness"  # of 25 records, of which one cannot be asked
    assert "limit" not in figures["python", "parses"]["protocol"]
    figures = judged(run, "tasks=[hellaswag]", f"path={questions}", "limit=20")
    assert figures["hellaswag", "acc"]["protocol"] == "harness, limit 20"


def test_other_tasks_of_the_same_model_stay_in_the_report(run: Path, questions: Path) -> None:
    judged(run, "tasks=[hellaswag]", f"path={questions}")
    judged(run, "tasks=[perplexity]", "limit=5")
    path = run / "evaluation" / "step_00000012" / "evaluation.json"
    tasks = {result["task"] for result in json.loads(path.read_text())["results"]}
    assert tasks >= {"hellaswag", "perplexity/stdlib", "perplexity/mean"}


def test_what_it_writes_is_drawn_from_a_seed(run: Path) -> None:
    figures = judged(run, "tasks=[python,answers]")
    again = judged(run, "tasks=[python,answers]", f"out_dir={run / 'again'}")
    for key, figure in figures.items():
        assert again[key]["value"] == figure["value"]
    assert figures["python", "parses"]["n"] == 128
    texts = [read_rows(folder / "python.jsonl") for folder in (run / "evaluation" / "step_00000012", run / "again")]
    assert texts[0] == texts[1]
    assert len({row["text"] for row in texts[0]}) > 100


def test_answers_alone_are_scored_of_a_chat(run: Path, shared_data: Path, tiny_data: Path) -> None:
    records = json.loads((shared_data / "alpaca" / "alpaca_5000.json").read_text())[:30]
    path = run / "chat.json"
    path.write_text(json.dumps(records))
    figures = judged(run, "tasks=[chat]", f"path={path}")
    tokenizer, model = load_tokenizer(tiny_data / "bpe_512"), load_model(run)
    nats = tokens = 0.0
    for record in records:
        asked = f"{record['instruction']}\n\n{record['input']}" if record["input"] else record["instruction"]
        ids, mask = tokenizer.encode_chat(
            [{"role": "user", "content": asked}, {"role": "assistant", "content": record["output"]}]
        )
        seen, bears = torch.tensor([[tokenizer.eot_id, *ids][:65]]), torch.tensor([mask[:64]]) > 0
        with torch.inference_mode():
            nats += float(model.loss_sum(seen[:, :-1], seen[:, 1:], bears).nats)
        tokens += int(bears.sum())
    assert figures["chat", "loss"]["value"] == pytest.approx(nats / tokens, rel=1e-5)
    assert len(figures["chat", "loss"]["cut"]) > 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tasks=hellaswag"], r"tasks is 'hellaswag': it must be a list, such as tasks=\[perplexity,hellaswag\]"),
        (["tasks=[hellaswug]"], "there is no task 'hellaswug'; conf/task has .*hellaswag"),
        (["tasks=[hellaswag]", "path=nowhere.jsonl"], r"task hellaswag: path=nowhere\.jsonl does not exist"),
        (["tasks=[hellaswag,piqa]", "path=README.md"], "would also be read by piqa"),
        (
            ["tasks=[piqa]", "path={questions}"],
            r"task piqa: hellaswag\.jsonl, line 1: the field (sol1|goal) is missing",
        ),
        (
            ["path=README.md"],
            "path is README.md, but none of the tasks reads records: to compute perplexity on a text of your own, use data=",
        ),
        (["tasks=[hellaswag]", "data=README.md"], "data is README.md, but none of the tasks reads a text"),
        (["limit=0"], "limit is 0: it must be a whole number"),
        (["stride=65"], "stride is 65: it must be from 1 to 64"),
        (["data=nowhere.txt"], r"^task perplexity: data=nowhere\.txt does not exist"),
        (
            ["tasks=[hellaswag]", "path=README.md"],
            r"path=README\.md contains texts: hellaswag needs records, in files of type \.jsonl ",
        ),
        (["run=runs/nothing"], "runs/nothing does not exist: it must be a run directory, a checkpoint"),
        (["tokenizer.name=gpt2"], "has a vocabulary of 512, smaller than the 50257 tokens of tokenizer gpt2"),
    ],
)
def test_refusals(run: Path, questions: Path, settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        judged(run, *(setting.replace("{questions}", str(questions)) for setting in settings))
    assert not (run / "evaluation").exists()


def test_a_split_that_was_made_anew_is_noticed(run: Path) -> None:
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    environment["data"]["stdlib"]["fingerprint"] = "0"
    path.write_text(json.dumps(environment))
    with pytest.raises(ValueError, match=r"stdlib was prepared again since the run was trained"):
        judged(run)
