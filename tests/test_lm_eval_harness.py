"""lm-evaluation-harness itself, on the same models: the same choices, example by example."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.convert import to_hf, to_native
from gpt_lightning.jsonl_reader import read_rows
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.evaluate import evaluate
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import ROOT, TINY

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install '.[harness]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the harness's dependencies
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(
        compose_config(
            "train", [*TINY, "name=run", "model.max_seq_len=256", f"data_dir={tiny_data}", f"runs_dir={runs}"]
        )
    )
    return runs / "run"


@pytest.fixture(scope="module", params=["trained", "random"])
def folder(
    request: pytest.FixtureRequest, run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of ours, with its tokenizer; the same model lies in `hf` beside it."""
    model, tokenizer = load_model(run), load_tokenizer(tiny_data / "bpe_512")
    if request.param == "random":
        torch.manual_seed(1)
        model = GPT(model.config).eval()
    folder = tmp_path_factory.mktemp("models") / "ours"
    to_native(model, folder, tokenizer)
    to_hf(model, folder.with_name("hf"), format="llama", tokenizer=tokenizer)
    return folder


@pytest.fixture
def theirs(folder: Path) -> Any:
    """Their model of the exported folder."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder.with_name("hf")), device="cpu", dtype="float32", batch_size=8, max_length=256)


@pytest.fixture
def ours(folder: Path) -> Any:
    """Ours under the harness."""
    from running.evaluation.lm_eval_harness import HarnessModel

    return HarnessModel(run=str(folder))


def evaluated_by_theirs(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """What the harness says of a task that is defined here: it need not read the thousands of its own."""
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_defaults=False)
    done: dict[str, Any] = lm_eval.simple_evaluate(
        model=model, tasks=[task], task_manager=tasks, log_samples=True, bootstrap_iters=0
    )
    return done


def test_hellaswag_is_theirs_example_by_example(
    folder: Path, theirs: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = shared_data / "hellaswag" / "hellaswag_val_1000_original_fields.jsonl"
    records = tmp_path / "hellaswag.jsonl"
    records.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:120]))
    from lm_eval.tasks.hellaswag.utils import process_docs

    task = {
        **{"task": "hellaswag_here", "dataset_path": "json", "dataset_kwargs": {"data_files": {"val": str(records)}}},
        **{"validation_split": "val", "output_type": "multiple_choice", "process_docs": process_docs},
        **{"doc_to_text": "{{query}}", "doc_to_target": "{{label}}", "doc_to_choice": "choices"},
        "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes")],
    }
    done = evaluated_by_theirs(theirs, task)
    overrides = [f"run={folder}", "tasks=[hellaswag]", f"path={records}"]
    report = evaluate(compose_config("evaluate", overrides))
    for figure in report["results"]:
        if figure["metric"].startswith("acc"):
            assert figure["value"] == done["results"]["hellaswag_here"][f"{figure['metric']},none"]
    rows = read_rows(folder / "evaluation" / "hellaswag.jsonl")
    samples = sorted(done["samples"]["hellaswag_here"], key=lambda sample: sample["doc_id"])
    assert len(rows) == len(samples) == 120
    for row, sample in zip(rows, samples, strict=True):
        assert row["nats"] == pytest.approx([-float(response[0][0]) for response in sample["resps"]], abs=1e-4)
        likelihoods, endings = [float(response[0][0]) for response in sample["resps"]], sample["doc"]["choices"]
        assert row["chosen"] == {
            "acc": int(np.argmax(likelihoods)),
            "acc_norm": int(np.argmax(np.array(likelihoods) / list(map(len, endings)))),
            "acc_bytes": int(np.argmax(np.array(likelihoods) / [len(ending.encode()) for ending in endings])),
        }
        assert {metric: float(row[metric]) for metric in ("acc", "acc_norm", "acc_bytes")} == {
            metric: sample[metric] for metric in ("acc", "acc_norm", "acc_bytes")
        }


def records_of(task: str, text: str) -> list[dict[str, Any]]:
    """Records of a task's public schema, made of a book's sentences."""
    sentences = [" ".join(part.split()) for part in text.split(".")]
    rows = [part for part in sentences if 20 < len(part) < 200][:24]
    middles = [len(row) // 2 for row in rows]
    if task == "lambada":
        return [{"text": row} for row in rows]
    if task == "blimp":
        return [{"sentence_good": f"{row}.", "sentence_bad": f"{row[::-1]}."} for row in rows]
    if task == "piqa":
        return [
            {"goal": row[:m], "sol1": row[m:], "sol2": row[:m], "label": n % 2}
            for n, (row, m) in enumerate(zip(rows, middles, strict=True))
        ]
    labels = [["A", "B", "C", "D"], ["1", "2", "3"]]  # both are in ARC
    return [
        {"question": row[:m], "answerKey": called[n % 3]}
        | {"choices": {"text": [row[m + k :] for k in range(len(called))], "label": called}}
        for n, (row, m) in enumerate(zip(rows, middles, strict=True))
        for called in [labels[n % 2]]
    ]


@pytest.mark.parametrize(
    ("task", "definition"),
    [
        ("arc_easy", "arc/arc_easy"),
        ("arc_challenge", "arc/arc_challenge"),
        ("piqa", "piqa/piqa"),
        ("lambada", "lambada/lambada_openai"),
        ("blimp", "blimp/anaphor_gender_agreement"),
    ],
)
def test_other_tasks_are_those_of_its_own_definitions(
    folder: Path,
    theirs: Any,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    definition: str,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = records_of(task, (shared_data / "books" / "11-0.txt").read_text(encoding="utf-8"))
    records = tmp_path / f"{task}.jsonl"
    records.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    defined = load_yaml(Path(lm_eval.__file__).parent / "tasks" / f"{definition}.yaml")
    defined.pop("training_split", None)
    split = {key: defined.pop(key, None) for key in ("test_split", "validation_split")}
    asked_split = "test_split" if split["test_split"] else "validation_split"
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"here": str(records)}}}
    done = evaluated_by_theirs(theirs, defined | local | {asked_split: "here"})
    ((name, samples),) = done["samples"].items()
    overrides = [f"run={folder}", f"tasks=[{task}]", f"path={records}"]
    report = evaluate(compose_config("evaluate", overrides))
    compared = 0
    for figure in report["results"]:
        if (key := f"{figure['metric']},none") in done["results"][name]:
            assert figure["value"] == pytest.approx(done["results"][name][key], rel=1e-4)
            compared += 1
    assert compared == len(defined["metric_list"])
    for row, sample in zip(
        read_rows(folder / "evaluation" / f"{task}.jsonl"),
        sorted(samples, key=lambda sample: sample["doc_id"]),
        strict=True,
    ):
        assert row["nats"] == pytest.approx([-float(response[0][0]) for response in sample["resps"]], abs=1e-4)


@pytest.mark.parametrize("folder", ["trained"], indirect=True)
def test_its_own_command_line_asks_our_models(folder: Path, shared_data: Path, tmp_path: Path) -> None:
    rows = records_of("lambada", (shared_data / "books" / "11-0.txt").read_text(encoding="utf-8"))
    records = tmp_path / "lambada.jsonl"
    records.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = {
        **{"task": "words_here", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(records)}}},
        **{"test_split": "test", "output_type": "loglikelihood"},
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "words_here.yaml").write_text(json.dumps(task))
    command = [sys.executable, "-m", "running.evaluation.lm_eval_harness", "run", "--model", "gpt_lightning"]
    command += ["--model_args", f"run={folder}", "--tasks", "words_here", "--include_path", str(tmp_path / "tasks")]
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output_path", str(tmp_path / "out")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ((result,),) = [list((tmp_path / "out").rglob("results_*.json"))]
    said = json.loads(result.read_text())["results"]["words_here"]
    report = evaluate(compose_config("evaluate", [f"run={folder}", "tasks=[lambada]", f"path={records}"]))
    ours = {figure["metric"]: figure["value"] for figure in report["results"]}
    assert said["acc,none"] == ours["acc"]
    assert said["perplexity,none"] == pytest.approx(ours["perplexity"], rel=1e-4)


def asked(*arguments: Any) -> Any:
    """A request of the harness."""
    return SimpleNamespace(args=arguments)


def test_requests_of_every_kind_are_answered_as_theirs(ours: Any, theirs: Any, shared_data: Path) -> None:
    book = (shared_data / "books" / "11-0.txt").read_text(encoding="utf-8")
    pairs = [("Alice was ", " tired"), ("", "Hello"), ("word " * 300, " end"), ("The king", " said: äöü")]
    for mine, other in zip(*(m.loglikelihood([asked(*pair) for pair in pairs]) for m in (ours, theirs)), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-3)
        assert mine[1] == other[1]
    texts = [asked(book[:length]) for length in (1, 300, 4000)]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), rel=1e-5)
    how = {"until": ["\n"], "max_gen_toks": 12}
    prompts = [asked("def ", how), asked("x " * 200, how | {"until": []})]
    assert ours.generate_until(prompts) == theirs.generate_until(prompts)


@pytest.mark.parametrize("folder", ["random"], indirect=True)
def test_generation_settings_are_applied_or_refused(ours: Any) -> None:
    def written(**how: Any) -> str:
        (text,) = ours.generate_until([asked("def ", {"until": [], "max_gen_toks": 16} | how)])
        return str(text)

    greedy = written()
    assert written(do_sample=False, temperature=0.7) == written(do_sample=True, top_k=1) == greedy
    assert written(temperature=1.0, top_p=1e-6, num_beams=1) == greedy
    assert written(do_sample=True) == written(temperature=1.0) == written(temperature=1, top_k=0) != greedy
    assert written(repetition_penalty=1e6) != greedy
    for how, said in (
        ({"min_p": 0.1, "num_beams": 4}, "--gen_kwargs min_p, num_beams cannot be applied: use until, max_gen_"),
        ({"top_p": 0.9}, "top_k and top_p need do_sample=true or a temperature"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5: it must be above 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=said):
            written(**how)


@pytest.mark.parametrize("folder", ["random"], indirect=True)
def test_chats_are_encoded_and_ended_as_theirs(ours: Any, theirs: Any) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1+1?"},
        {"role": "assistant", "content": "It is"},
    ]
    for messages, add in ((chat[:2], True), (chat, False)):
        text = ours.apply_chat_template(messages, add_generation_prompt=add)
        assert text == theirs.apply_chat_template(messages, add_generation_prompt=add)
        assert ours.tok_encode(text) == theirs.tok_encode(text)
        assert ours.tokenizer.special_ids["<|im_start|>"] in ours.tok_encode(text)
        pairs = [asked(text, " two"), asked(text, "<|im_end|>")]
        expected = theirs.loglikelihood(pairs)
        for mine, other in zip(ours.loglikelihood(pairs), expected, strict=True):
            assert mine[0] == pytest.approx(other[0], abs=1e-3)
        how = {"until": [], "max_gen_toks": 12}
        assert ours.generate_until([asked(text, how)]) == theirs.generate_until([asked(text, how)])
    assert ours.chat_template(True) == theirs.tokenizer.chat_template
    assert ours.tokenizer.special_ids["<|im_start|>"] not in ours.tok_encode("a <|im_start|>")  # a text stays one


@pytest.mark.parametrize("folder", ["random"], indirect=True)
def test_a_chat_that_cannot_be_written_is_refused(ours: Any) -> None:
    with pytest.raises(ValueError, match="there is no chat template 'mine': use --apply_chat_template without a name"):
        ours.chat_template("mine")
    del ours.tokenizer.special_ids["<|im_start|>"]
    for call in (lambda: ours.chat_template(True), lambda: ours.apply_chat_template([])):
        with pytest.raises(ValueError, match=r"tokenizer 'ours' has no chat tokens: leave out --apply_chat_template"):
            call()


def test_what_no_figure_can_be_of_gets_none(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space is no context; an empty answer is refused, as their model does; a context that is cut is said."""
    warned: list[str] = []  # commands that ran in this process before may have switched the loggers off
    log = logging.getLogger("running.evaluation.lm_eval_harness")
    monkeypatch.setattr(log, "warning", lambda text, *values: warned.append(text % values))
    pairs = (("\n", " hello"), ("", "\n hello"))
    blank, none = (ours.loglikelihood([asked(*pair)])[0] for pair in pairs)
    assert blank == pytest.approx(none)
    with pytest.raises(ValueError, match="one must come before and after the start of scoring"):
        ours.loglikelihood([asked("abc", "")])
    ours.loglikelihood([asked("word " * 300, " end"), asked("a", " b")])
    assert len(warned) == 1
    assert warned[0].startswith("1 of 2 requests are longer than the window of 256 tokens")


def test_the_harness_knows_our_models(folder: Path) -> None:
    from lm_eval.api.registry import get_model

    import running.evaluation.lm_eval_harness

    assert get_model("gpt_lightning") is running.evaluation.lm_eval_harness.HarnessModel
    made = get_model("gpt_lightning").create_from_arg_string(f"run={folder}", {"batch_size": 1, "device": "cpu"})
    assert made.max_length == 256
    assert json.loads((folder / "config.json").read_text())
