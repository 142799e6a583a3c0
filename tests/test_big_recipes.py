"""The big recipes from documents to figures, as their pages go: prepared, planned, trained, judged and asked, in small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from running.commands import evaluate as judging
from running.commands import generate as writing
from running.commands.plan import plan
from running.commands.prepare import prepare
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import CORPORA, TINY

A_BPE = ["tokenizer.name=bpe_600", "tokenizer.model_vocab_size=600"]  # of so little text there are not 50,257
SMALL = [setting for setting in TINY if not setting.startswith(("tokenizer.", "global_batch", "micro_batch"))]
ONCE = ["max_steps=10", "val_every=10", "callbacks.samples.every=10", "callbacks.checkpoints.every=10"]
ON_A_CPU = ["trainer.precision=32-true", "trainer.compile=false", "optimizer=adamw", "optimizer.fused=false"]
SOURCES = ["c4", "cosmopedia", "alpaca", "python", "fineweb"]
RECIPES = {"mixed_curriculum": SOURCES[:4], "rangeflow": SOURCES[:4], "gpt2_5": ["fineweb"]}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of files in the schema of the hub's, made of the Python installation."""
    files, folder = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("data")
    texts = [str(text)[:1_000] for text in CORPORA["pydoc"]()]
    records: dict[str, list[dict[str, str]]] = {
        "alpaca": [{"instruction": t[:40], "input": "", "output": t[40:120]} for t in texts if len(t) > 120],
        "python": [{"content": str(text)[:4_000]} for text in CORPORA["stdlib"]()],
    }
    for name in SOURCES:
        rows = records.get(name, [{"text": text} for text in texts])
        path = files / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        settings = [f"source={name}", f"path={path}", "workers=1", f"data_dir={folder}", f"tokenizer.train_on=[{name}]"]
        prepare(compose_config("prepare", [*settings, *A_BPE]))
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_goes_from_documents_to_figures(recipe: str, data_dir: Path, tmp_path: Path) -> None:
    settings = [f"experiment={recipe}", "hardware=h200", *SMALL, *ONCE, *A_BPE, *ON_A_CPU, "global_batch=32"]
    settings += [f"data_dir={data_dir}", f"runs_dir={tmp_path}", "curriculum.on_exhausted=repeat"]
    settings += ["~callbacks.hellaswag"] if recipe == "gpt2_5" else []
    content = plan(compose_config("plan", settings), silently=True)
    assert (content["not_prepared"], content["device"]) == ([], "H200")
    final = train(compose_config("train", settings))
    assert final["step"] == 10
    run = tmp_path / recipe
    report: dict[str, Any] = judging.evaluate(compose_config("evaluate", [f"run={run}", "limit=2"]))
    losses = {r["task"]: r["value"] for r in report["results"] if r["metric"] == "loss"}
    for source in RECIPES[recipe]:
        (loss,) = (value for task, value in losses.items() if task.startswith(f"perplexity/{source}"))
        assert loss == pytest.approx(np.log(600), rel=0.2)
        assert np.isfinite(final[f"val/loss/{source}"])
    said = writing.generate(compose_config("generate", [f"run={run}", "prompt=Once", "max_new_tokens=3"]))
    assert isinstance(said, str)
