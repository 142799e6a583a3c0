"""python -m benchmarks.architecture_ablation: the effect of each choice of model=modern_124m, measured on model=micro.

Trains on the quickstart's data for fewer steps, with one choice changed at a time and with all of them, for several
seeds. All models have about as many parameters as the unchanged one. Finished runs are not repeated, so it can be
stopped and started again. Writes the table of docs/explanation/model.md.
"""

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.machine import describe
from benchmarks.tables import ROOT, Lines, markdown_table, put_into, read_results, write_results

RUNS = ROOT / "runs" / "choices"
STEPS, SEEDS = 500, (1, 2, 3)
BEGIN, END = "<!-- made by python -m benchmarks.architecture_ablation -->\n", "<!-- end -->\n"
QUERIES = ["n_kv_heads=1", "d_ff=426"]
RELU2 = ["feed_forward=relu2", "d_ff=576"]
CHOICES: dict[str, list[str]] = {
    "micro: RMSNorm, SwiGLU, RoPE, scaled residual initialisation": [],
    "QK-norm": ["qk_norm=true"],
    "ReLU² instead of SwiGLU": RELU2,
    "zero instead of scaled residual initialisation": ["residual_init=zero"],
    "plain instead of scaled residual initialisation": ["residual_init=plain"],
    "logits soft-capped at 15": ["logit_soft_cap=15"],
    "z-loss 1e-4": ["z_loss=1e-4"],
    "one key-value head per two query heads": QUERIES,
    "documents apart": ["attend_across_documents=false"],
    "all of modern_124m": [
        *("qk_norm=true", "residual_init=zero", "logit_soft_cap=15", "z_loss=1e-4", "attend_across_documents=false"),
        *("feed_forward=relu2", "n_kv_heads=1", "d_ff=640"),
    ],
    "all of modern_124m, but with scaled residual initialisation": [
        *("qk_norm=true", "logit_soft_cap=15", "z_loss=1e-4", "attend_across_documents=false"),
        *("feed_forward=relu2", "n_kv_heads=1", "d_ff=640"),
    ],
    "GPT-2's: LayerNorm, GELU, learned positions, biases": [
        *("norm=layernorm", "feed_forward=gelu_tanh", "d_ff=538", "position=learned", "bias=true"),
    ],
}


def measure(choice: str, seed: int) -> dict[str, Any]:
    """Mean validation loss in nats and tokens per second of one run, which is trained unless it is finished."""
    number = list(CHOICES).index(choice)
    name = f"{number:02d}_seed{seed}"
    settings = [f"model.{setting}" for setting in CHOICES[choice]]
    command = [
        *(sys.executable, "train.py", "experiment=quickstart", f"name={name}", f"runs_dir={RUNS}", f"seed={seed}"),
        *(f"max_steps={STEPS}", f"val_every={STEPS}", f"callbacks.samples.every={STEPS}", *settings),
    ]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{choice}: {finished.stderr}")
    rows = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [row["speed/tokens_per_s"] for row in rows if "speed/tokens_per_s" in row]
    losses = [row["val/loss/mean"] for row in rows if "val/loss/mean" in row]
    environment = json.loads((RUNS / name / "environment.json").read_text(encoding="utf-8"))
    revision = environment["git"]["revision"][:7]  # the run may be from an earlier commit
    return {"loss": losses[-1], "tokens_per_second": statistics.median(speeds), "commit": revision}


def main() -> None:
    """Measure every choice with every seed, and write the table."""
    results: dict[str, list[dict[str, Any]]] = {choice: [] for choice in CHOICES}
    for seed in SEEDS:
        for choice in CHOICES:
            results[choice].append(measure(choice, seed))
            print(f"seed {seed}, {choice}: {results[choice][-1]['loss']:.4f}", flush=True)
    machine = describe("cpu")
    machine["commit"] = ", ".join(sorted({run["commit"] for runs in results.values() for run in runs}))
    write_results("choices", {"machine": machine, "steps": STEPS, "results": results})
    put_into(ROOT / "docs" / "explanation" / "model.md", BEGIN, END, markdown())


def markdown() -> str:
    """The table of docs/explanation/model.md."""
    content = read_results("choices")
    return markdown_table(_lines(content["results"]), content["machine"])


def _lines(results: dict[str, list[dict[str, Any]]]) -> Lines:
    plain, *_ = results.values()
    lines = [["choice", "validation loss", "difference from the first row, seed by seed", "tokens/s"]]
    for choice, runs in results.items():
        differences = [run["loss"] - other["loss"] for run, other in zip(runs, plain, strict=True)]
        spread = statistics.stdev(differences) / len(differences) ** 0.5
        effect = "" if runs is plain else f"{statistics.mean(differences):+.4f} ± {spread:.4f}"
        loss = statistics.mean(run["loss"] for run in runs)
        speed = statistics.median(run["tokens_per_second"] for run in runs)
        lines.append([choice, f"{loss:.4f}", effect, f"{speed:,.0f}"])
    return lines


if __name__ == "__main__":
    main()
