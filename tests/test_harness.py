"""lm-evaluation-harness itself, on the same models: the same choices, example by example."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import evaluate as verb
import launch
from analysis.run_record import read_rows
from gpt_lightning import load_model
from gpt_lightning.convert import to_hf, to_native
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import load_tokenizer
from train import train

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install '.[harness]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the harness's dependencies
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(params=["trained", "random"])
def folder(
    request: pytest.FixtureRequest, tiny_config: Callable[..., dict[str, Any]], tiny_data: Path, tmp_path: Path
) -> Path:
    """A folder of ours, with its tokenizer; the same model lies in `hf` beside it."""
    train(tiny_config("name=run", "model.max_seq_len=256"))
    model, tokenizer = load_model(tmp_path / "runs" / "run"), load_tokenizer(tiny_data / "bpe_512")
    if request.param == "random":
        torch.manual_seed(1)
        model = GPT(model.config).eval()
    to_native(model, tmp_path / "ours", tokenizer)
    to_hf(model, tmp_path / "hf", format="llama", tokenizer=tokenizer)
    return tmp_path / "ours"


@pytest.fixture
def theirs(folder: Path) -> Any:
    """Their model of the exported folder."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder.with_name("hf")), device="cpu", dtype="float32", batch_size=8, max_length=256)


@pytest.fixture
def ours(folder: Path) -> Any:
    """Ours under the harness."""
    from running.harness import HarnessModel

    return HarnessModel(run=str(folder))


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
    done = lm_eval.simple_evaluate(model=theirs, tasks=[task], log_samples=True, bootstrap_iters=0)
    overrides = [f"run={folder}", "tasks=[hellaswag]", f"path={records}"]
    report = verb.evaluate(launch.compose_config("evaluate", overrides))
    for figure in report["results"]:
        if figure["metric"].startswith("acc"):
            assert figure["value"] == done["results"]["hellaswag_here"][f"{figure['metric']},none"]
    rows = read_rows(folder / "evaluation" / "hellaswag.jsonl")
    samples = sorted(done["samples"]["hellaswag_here"], key=lambda sample: sample["doc_id"])
    assert len(rows) == len(samples) == 120
    for row, sample in zip(rows, samples, strict=True):
        assert row["nats"] == pytest.approx([-float(response[0][0]) for response in sample["resps"]], abs=1e-4)
        assert {metric: float(row[metric]) for metric in ("acc", "acc_norm", "acc_bytes")} == {
            metric: sample[metric] for metric in ("acc", "acc_norm", "acc_bytes")
        }


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


def test_the_harness_knows_our_models(folder: Path) -> None:
    from lm_eval.api.registry import get_model

    import running.harness

    assert get_model("gpt_lightning") is running.harness.HarnessModel
    made = get_model("gpt_lightning").create_from_arg_string(f"run={folder}", {"batch_size": 1, "device": "cpu"})
    assert made.max_length == 256
    assert json.loads((folder / "config.json").read_text())
