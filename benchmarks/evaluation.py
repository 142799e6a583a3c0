"""HellaSwag on a CPU with evaluate.py and with lm-evaluation-harness, on the same model and records.

python -m benchmarks.evaluation hellaswag.jsonl [runs/quickstart]: compare both on all records, for a random and for the
trained model: are log-likelihoods and choices the same for each example?
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt_lightning.convert import load_model, to_hf, to_native
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer
from running.commands import evaluate
from running.config.compose import compose_config
from running.training.find_tokenizer import load_model_tokenizer

_APART = 1e-4  # largest difference, in nats
Answer = tuple[list[float], int, int]
"""For an example: the log-likelihood of each ending, and the endings that acc and acc_norm choose."""
Answers = list[Answer]


def measure(who: str, *, records: str, limit: int) -> dict[str, float]:
    """Seconds, and tokens of endings scored per second, of the quickstart's micro model, untrained.

    Args:
        who: ours, or lm-evaluation-harness.
        records: a JSON Lines file of HellaSwag records, as on the hub.
        limit: number of records to use.
    """
    torch.manual_seed(0)
    tokenizer = load_tokenizer("data/bpe_4096")
    sizes = compose_config("train", ["experiment=quickstart"])["model"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = GPT(GPTConfig(**sizes)).eval()
        to_native(model, folder / "ours", tokenizer)
        to_hf(model, folder / "hf", format="llama", tokenizer=tokenizer)
        lines = Path(records).read_text(encoding="utf-8").splitlines()[:limit]
        chosen = folder / "hellaswag.jsonl"
        chosen.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        began = time.perf_counter()
        answers = ours(folder / "ours", chosen) if who == "ours" else theirs(folder / "hf", chosen)
        seconds = time.perf_counter() - began
        endings = (ending for line in lines for ending in json.loads(line)["endings"])
        tokens = sum(len(tokenizer.encode(f" {ending}")) for ending in endings)
    assert len(answers) == len(lines)
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def ours(model: Path, records: Path) -> Answers:
    """Evaluate with evaluate.py."""
    with tempfile.TemporaryDirectory() as folder:
        with records.open(encoding="utf-8") as file:
            task = "hellaswag" if "ctx_a" in json.loads(next(file)) else "hellaswag_resolved"
        overrides = [f"run={model}", f"tasks=[{task}]", f"path={records}", f"out_dir={folder}"]
        evaluate.evaluate(compose_config("evaluate", overrides))
        rows = map(json.loads, (Path(folder) / f"{task}.jsonl").read_text(encoding="utf-8").splitlines())
        return [([-nats for nats in row["nats"]], row["chosen"]["acc"], row["chosen"]["acc_norm"]) for row in rows]


def theirs(model: Path, records: Path, *, dtype: str = "float32") -> Answers:
    """Evaluate with lm-evaluation-harness, which reads the records through `datasets`."""
    import lm_eval  # slow to import, and needed by one contestant only
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.hellaswag.utils import process_docs

    def one_context(data: Any) -> Any:
        """Build a single context from its parts; in other files it is one already."""
        parted = "ctx_a" in data.column_names
        return (
            process_docs(data)
            if parted
            else data.map(
                lambda doc: {
                    "query": f"{doc['activity_label']}: {doc['ctx']}",
                    "choices": doc["endings"],
                    "gold": int(doc["label"]),
                }
            )
        )

    task = {
        **{"task": "hellaswag_here", "dataset_path": "json", "dataset_kwargs": {"data_files": {"val": str(records)}}},
        **{"validation_split": "val", "output_type": "multiple_choice", "process_docs": one_context},
        **{"doc_to_text": "{{query}}", "doc_to_target": "{{label}}", "doc_to_choice": "choices"},
        "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm")],
    }
    length = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    lm = HFLM(pretrained=str(model), device="cpu", dtype=dtype, batch_size=32, max_length=length)
    done: Any = lm_eval.simple_evaluate(model=lm, tasks=[task], log_samples=True, bootstrap_iters=0)
    samples = sorted(done["samples"]["hellaswag_here"], key=lambda sample: sample["doc_id"])
    return [_chosen(sample) for sample in samples]


def _chosen(sample: Mapping[str, Any]) -> Answer:
    """The harness's choice, which it does not record: recomputed, and checked against the recorded correctness."""
    likelihoods = [float(response[0][0]) for response in sample["resps"]]
    lengths = [len(ending) for ending in sample["doc"]["choices"]]
    acc, acc_norm = int(np.argmax(likelihoods)), int(np.argmax(np.array(likelihoods) / lengths))
    gold = int(sample["doc"]["gold"])
    assert (acc == gold, acc_norm == gold) == (bool(sample["acc"]), bool(sample["acc_norm"]))
    return likelihoods, acc, acc_norm


def agreement(records: Path, run: Path) -> None:
    """Compare both, example by example, for a random model and for a trained one, and print the differences."""
    tokenizer = load_model_tokenizer(run, None)
    trained = load_model(run)
    torch.manual_seed(0)
    for what, model in (("random", GPT(trained.config).eval()), ("trained", trained)):
        if not agree(what, model, tokenizer, records):
            sys.exit("the results differ")


def agree(what: str, model: GPT, tokenizer: Tokenizer, records: Path) -> bool:
    """Whether both give the same choices and, within 1e-4 nats, the same log-likelihoods. Prints the differences.

    The harness sums in the model's fp32, whose spacing near 1,000 nats is 6e-5. Examples with larger differences are
    evaluated again in fp64.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        to_native(model, folder / "ours", tokenizer)
        to_hf(model, folder / "hf", format="llama", tokenizer=tokenizer)
        began = time.perf_counter()
        mine = ours(folder / "ours", records)
        seconds = time.perf_counter() - began
        other = theirs(folder / "hf", records)
        their_seconds = time.perf_counter() - began - seconds
        apart = [_apart(m, t) for m, t in zip(mine, other, strict=True)]
        coarse = [n for n, far in enumerate(apart) if far > _APART]
        lines = records.read_text(encoding="utf-8").splitlines()
        again = folder / "again.jsonl"
        again.write_text("".join(f"{lines[n]}\n" for n in coarse), encoding="utf-8")
        exact = theirs(folder / "hf", again, dtype="float64") if coarse else []
    further = max((_apart(mine[n], answer) for n, answer in zip(coarse, exact, strict=True)), default=0.0)
    unlike = sum(m[1:] != t[1:] for m, t in zip(mine, other, strict=True))
    print(
        f"{what}: {len(mine):,} examples, {unlike} different choices; log-likelihoods differ by at most "
        f"{max(apart):.1e}, by more than {_APART:g} in {len(coarse)} examples, and in these by at most {further:.1e} "
        f"from the harness in fp64; {seconds:.0f} s, lm-evaluation-harness {their_seconds:.0f} s"
    )
    return further <= _APART and not unlike


def _apart(mine: Answer, other: Answer) -> float:
    """The largest difference between log-likelihoods of one example, in nats."""
    return max(abs(a - b) for a, b in zip(mine[0], other[0], strict=True))


if __name__ == "__main__":
    agreement(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "runs/quickstart"))
