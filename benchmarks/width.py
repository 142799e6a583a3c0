"""python -m benchmarks.width: the best learning rate at three widths, with and without `base_width`.

Trains small models on the quickstart's data, at every learning rate with every seed. Finished runs are not repeated, so
it can be stopped and started again. `python -m benchmarks.width 1/2` trains every second run, for two processes in
parallel; without such a part, the table and the plot of docs/recipes/optimizers.md are written.
"""

import contextlib
import io
import statistics
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.machine import describe
from benchmarks.tables import ROOT, Lines, markdown_table, put_into, read_results, write_results
from running.commands.train import train
from running.config.compose import compose_config

RUNS = ROOT / "runs" / "width"
WIDTHS, BASE_WIDTH = (64, 128, 256), 64
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEEDS = {"adamw": (1, 2)}  # "muon" can be added
STEPS = 200
SMALL = ["model.n_layers=2", "model.max_seq_len=64", "global_batch=8", "micro_batch=8", "trainer.accelerator=cpu"]
BEGIN, END = "<!-- made by python -m benchmarks.width -->\n", "<!-- end of width -->\n"
PICTURE = ROOT / "docs" / "images" / "width.png"


def loss_of(name: str, *settings: str, width: int, rate: float, seed: int) -> float:
    """Final validation loss of a small model in nats, mean of the sources; it is trained unless it is finished."""
    sizes = [f"model.d_model={width}", f"model.n_heads={width // 32}", f"model.d_ff={3 * width}"]
    config = compose_config(
        "train",
        [
            *("experiment=quickstart", f"runs_dir={RUNS}", f"name={name}_{width}_{rate:g}_{seed}", *SMALL, *sizes),
            *(f"optimizer.lr={rate}", f"seed={seed}", f"max_steps={STEPS}", "schedule.warmup_steps=20"),
            *(f"val_every={STEPS}", "~callbacks.samples", f"callbacks.checkpoints.every={STEPS}", "data.verify=false"),
            *settings,
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        return train(config)["val/loss/mean"]


def main() -> None:
    """Train the runs; without a part, write table and plot."""
    torch.set_num_threads(1)  # the matrices are small
    part, _, parts = (sys.argv[1] if sys.argv[1:] else "1/1").partition("/")
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number, (optimizer, base_width, width, rate, seed) in enumerate(_runs()):
        if number % int(parts) == int(part) - 1:
            base = None if width == BASE_WIDTH else base_width  # both are the same at this width
            settings = [f"optimizer={optimizer}", f"base_width={'null' if base is None else base}"]
            loss = loss_of(f"{optimizer}_{base}", *settings, width=width, rate=rate, seed=seed)
            print(f"{optimizer}, base_width {base}, d_model {width}, lr {rate:g}, seed {seed}: {loss:.4f}", flush=True)
            of_widths = results.setdefault(_title(optimizer, base_width), {})
            of_widths.setdefault(str(width), {}).setdefault(f"{rate:g}", []).append(loss)
    if parts == "1":
        write_results("width", {"machine": describe("cpu"), "steps": STEPS, "results": results})
        put_into(ROOT / "docs" / "recipes" / "optimizers.md", BEGIN, END, markdown())
        draw(results)


def _runs() -> Iterator[tuple[str, int | None, int, float, int]]:
    """Optimizer, base width, width, learning rate and seed of each run."""
    for optimizer, seeds in SEEDS.items():
        for seed in seeds:
            yield from ((optimizer, *ways, seed) for ways in product((None, BASE_WIDTH), WIDTHS, RATES))


def _title(optimizer: str, base_width: int | None) -> str:
    return optimizer if base_width is None else f"{optimizer}, base_width={base_width}"


def markdown() -> str:
    """The table of docs/recipes/optimizers.md."""
    content = read_results("width")
    return markdown_table(_lines(content["results"]), content["machine"])


def _lines(results: dict[str, Any]) -> Lines:
    lines = [["optimizer", "d_model", *(f"lr {rate:g}" for rate in RATES), "best at"]]
    for title, of_widths in results.items():
        for width, of_rates in of_widths.items():
            means = {rate: statistics.mean(losses) for rate, losses in of_rates.items()}
            best = min(means, key=lambda rate: means[rate])
            cells = [f"**{mean:.3f}**" if rate == best else f"{mean:.3f}" for rate, mean in means.items()]
            lines.append([title, width, *cells, best])
    return lines


def draw(results: dict[str, Any]) -> None:
    """Plot the loss over the learning rate, with a curve per width and a panel per optimizer and base width."""
    figure, panels = plt.subplots(1, len(results), figsize=(4 * len(results), 3.6), sharey=True, layout="constrained")
    for panel, (title, of_widths) in zip(panels, results.items(), strict=True):
        for number, (width, of_rates) in enumerate(of_widths.items()):
            rates = [float(rate) for rate in of_rates]
            means = [statistics.mean(losses) for losses in of_rates.values()]
            best = means.index(min(means))
            panel.plot(rates, means, "o-", color=f"C{number}", label=f"d_model {width}", markersize=3)
            panel.plot(rates[best], means[best], "o", color=f"C{number}", markersize=9, fillstyle="none")
            for rate, losses in zip(rates, of_rates.values(), strict=True):
                panel.plot([rate] * len(losses), losses, ".", color=f"C{number}", alpha=0.4, markersize=4)
        panel.set(xscale="log", title=title, xlabel="optimizer.lr")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation loss, nats")
    panels[0].legend()
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
