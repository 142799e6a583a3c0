"""python -m benchmarks.count_cuda_calls: calls of CUDA in training and generation, counted without a GPU.

Counts launches of a step, of the loss head, of Muon and of a generated token; waits and copies of the real Trainer;
graph breaks; and compares memory with plan.py's estimate. Prints tables, writes benchmarks/results/null_gpu.json and
the table of docs/speed.md, and exits with 1 if a value is above its limit. A limit given as a product is a
fraction of what commit 19adf72, written without a GPU in mind, needed.
"""

import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch

from benchmarks.cuda_call_counter import COUNTED_STEPS, CountedSteps, CudaCalls, GraphStandIn, require_null_gpu
from benchmarks.machine import describe
from benchmarks.tables import ROOT, Lines, markdown_table, print_table, put_into, read_results, write_results
from callbacks.mix_ledger import MixLedger
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.loss_head import cross_entropy_sum
from gpt_lightning.model.model_size import build_meta_model
from gpt_lightning.optim import MuonAdamW, parameter_groups
from gpt_lightning.optim.optimizer_traits import ADAMW
from running.commands.train import train
from running.config import allowed_targets
from running.config.compose import compose_config, group_choices
from running.training.memory_estimate import TrainingSetup, peak_memory_bytes

BEGIN, END = "<!-- made by python -m benchmarks.count_cuda_calls -->", "<!-- end of what was counted -->"
BATCH = 32
# sequences of a micro-batch in the rows of memory, if not BATCH
MICRO_BATCH = {"gpt2_350m": 16, "gpt2_774m": 8, "gpt2_1558m": 4, "rangeflow_124m": 8}
TOKENS = 64  # generated
Row = dict[str, Any]
"""what, figure, and limit (None: no limit). A memory row also has bytes."""


def launch_rows() -> Iterator[Row]:
    """Launches of one step of GPT-2 124M: 32 sequences of 1,024 tokens in one micro-batch, bf16-mixed."""
    for name, compiled, limit in (
        ("gpt2_124m", False, 0.30 * 3195),
        ("gpt2_124m", True, 0.25 * 3111),
        ("modern_124m", False, None),
        ("modern_124m", True, None),
    ):
        config = shipped(name)
        model = on_gpu(config, compiled=compiled)
        optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-4, fused=True)
        for _ in range(2):
            _step(model, optimizer)
        with CudaCalls() as calls:
            _step(model, optimizer)
        what = f"launches of a step, {name}{', compiled' if compiled else ''}"
        yield {"what": what, "figure": calls.launches, "limit": limit}
        masked = config.n_layers - calls.kernels_named("flash_fwd_kernel")
        yield {"what": f"layers without a flash kernel, {what.partition(', ')[2]}", "figure": masked, "limit": 0}


def loss_head_rows() -> Iterator[Row]:
    """Launches of the loss head's forward and backward pass over 32,768 tokens."""
    for kernel, limit in (("auto", 50), ("torch", None)):
        x, weight = (torch.empty(n, 768, device="cuda", requires_grad=True) for n in (BATCH * 1024, 50304))
        targets = torch.zeros(len(x), dtype=torch.int64, device="cuda")
        for _ in range(2):
            with CudaCalls() as calls:
                with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
                    loss = cross_entropy_sum(x, weight, targets, None, kernel=kernel)
                loss.objective.backward()
        yield {"what": f"launches of the loss head, kernel {kernel}", "figure": calls.launches, "limit": limit}


def muon_rows() -> Iterator[Row]:
    """Launches of one step of Muon."""
    for name, limit in (("gpt2_124m", 0.15 * 1675), ("modern_124m", None)):
        model = on_gpu(shipped(name))
        optimizer = MuonAdamW(parameter_groups(model, muon=True), lr=1e-4, fused=True)
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)
            with CudaCalls() as calls:
                optimizer.step()
        yield {"what": f"launches of a step of Muon, {name}", "figure": calls.launches, "limit": limit}


def generation_rows() -> Iterator[Row]:
    """Calls per generated token, as the mean of 64 tokens, including the capture of the graph."""
    torch.cuda.CUDAGraph = GraphStandIn  # type: ignore[assignment, misc]
    for name, batch, limit in (("gpt2_124m", 1, 0.35 * 155), ("gpt2_124m", 8, None), ("modern_124m", 8, None)):
        model = on_gpu(shipped(name)).eval()
        sampling = Sampling(temperature=0.8, top_k=50)
        counted = []
        for tokens in (8, 1, 1 + TOKENS):  # the first call is not counted
            with CudaCalls() as calls:
                generate(model, [[1] * 32] * batch, tokens, sampling=sampling)
            counted.append(calls)
        _, one, many = counted
        what = f"of a generated token, {name}, batch {batch}"
        yield {"what": f"launches {what}", "figure": (many.launches - one.launches) / TOKENS, "limit": limit}
        yield {"what": f"waiting for a stream {what}", "figure": (many.waits - one.waits) / TOKENS, "limit": 0}
        yield {"what": f"pageable copies {what}", "figure": (many.pageable - one.pageable) / TOKENS, "limit": 0}


def graph_rows() -> Iterator[Row]:
    """Graph breaks in the forward and backward pass of every shipped model."""
    for name in group_choices("model"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = on_gpu(shipped(name, n_layers=2))
        for block in model.blocks:
            block.compile(backend="aot_eager")
        one_pass(model, 2)
        breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        yield {"what": f"graph breaks, {name}", "figure": breaks, "limit": 0}
        yield {"what": f"graphs for all blocks, {name}", "figure": graphs, "limit": 1}


def memory_rows() -> Iterator[Row]:
    """Peak memory that torch allocates in a step of two micro-batches, and plan.py's estimate."""
    for name in group_choices("model"):
        variants: list[dict[str, Any]] = [{}, {"compiled": True}, {"recompute": True}]
        for settings in variants:
            torch._dynamo.reset()
            config, micro_batch = shipped(name), MICRO_BATCH.get(name, BATCH)
            got = _peak_memory(config, micro_batch, **settings)
            setup = TrainingSetup(micro_batch=micro_batch, precision="bf16-mixed", **settings)
            foretold = peak_memory_bytes(build_meta_model(config), ADAMW, setup)
            what = ", ".join([f"memory of {name}", f"{micro_batch} sequences", *settings])
            yield {"what": what, "model": name, "micro_batch": micro_batch, "settings": settings} | {
                "bytes": got,
                "figure": abs(foretold / got - 1),
                "limit": 0.05,
            }


def trainer_rows() -> Iterator[Row]:
    """Calls in a step of train.py: two micro-batches, all callbacks of the quickstart, none of them due."""
    allowed_targets.CALLBACKS = (*allowed_targets.CALLBACKS, "benchmarks")
    MixLedger._refuse_another_order = lambda *counted: None  # type: ignore  # it would compare garbage here
    seldom = ["val_every=1000", "log_every=1000", "callbacks.samples.every=1000", "callbacks.checkpoints.every=1000"]
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config(
            "train",
            [
                *("experiment=quickstart", "model=gpt2_124m", "tokenizer=gpt2", f"runs_dir={folder}", *seldom),
                *("data.verify=false", "data.val_sequences=8", "max_steps=10", "schedule.warmup_steps=1"),
                *(
                    "global_batch=16",
                    "micro_batch=8",
                    "callbacks.mix_ledger.every=1000",
                    "callbacks.throughput.every=1000",
                ),
            ],
        )
        keyframes = {"start": {"at": 0.0, "weights": {"stdlib": 1.0}}}
        config["curriculum"] |= {"unit": "fraction", "on_exhausted": "repeat", "max_epochs": {}, "keyframes": keyframes}
        config["callbacks"] = {"counted": {"_target_": "benchmarks.cuda_call_counter.CountedSteps"}} | config[
            "callbacks"
        ]
        with suppress(ZeroDivisionError, FloatingPointError):  # caused by garbage values after the counted steps
            train(config)
    calls = CountedSteps.calls
    for what, n, limit in (
        ("waiting for a stream", calls.waits, 1),
        ("waiting for an event", calls.event_waits, 1),
        ("pageable copies", calls.pageable, 0),
        ("launches", calls.launches, None),
    ):
        yield {"what": f"{what} in a step of train.py", "figure": n / COUNTED_STEPS, "limit": limit}


def shipped(name: str, **sizes: Any) -> GPTConfig:
    """The model configuration of conf/model/<name>.yaml."""
    tokenizer = [] if "micro" in name else ["tokenizer=gpt2"]
    model = compose_config("train", ["experiment=quickstart", f"model={name}", *tokenizer])["model"]
    return GPTConfig(**model | sizes, eot_id=0)


def on_gpu(config: GPTConfig, *, compiled: bool = False) -> GPT:
    model = build_meta_model(config)
    model.to_empty(device="cuda").train()
    if config.tie_embeddings:  # to_empty has separated them
        model.head.weight = model.embedding.weight
    if compiled:
        model.compile_blocks()
    return model


def one_pass(model: GPT, micro_batch: int) -> None:
    length = model.config.max_seq_len
    ids = torch.zeros(micro_batch, length, dtype=torch.int64, device="cuda")
    borders = torch.full((micro_batch + micro_batch * length // 64 + 1,), ids.numel(), dtype=torch.int32, device="cuda")
    apart = not model.config.attend_across_documents
    with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
        loss = model.loss_sum(ids, ids, None, borders if apart else None).objective / ids.numel()
    loss.backward()


def _step(model: GPT, optimizer: torch.optim.Optimizer) -> None:
    one_pass(model, BATCH)
    optimizer.step()
    optimizer.zero_grad()


def _peak_memory(config: GPTConfig, micro_batch: int, *, compiled: bool = False, recompute: bool = False) -> int:
    gc.collect()
    torch.cuda.empty_cache()
    model = on_gpu(config, compiled=compiled)
    model.recompute = recompute
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-4, fused=True)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        one_pass(model, micro_batch)
        one_pass(model, micro_batch)
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated()


def lines(rows: list[Row]) -> Lines:
    """The rows as a table."""
    table = [["counted on a null GPU", "figure", "limit", "plan.py"]]
    for row in rows:
        memory = "bytes" in row
        figure = f"{row['bytes'] / 1e9:.2f} GB" if memory else f"{row['figure']:,.3g}".removesuffix(".0")
        if not memory and row["figure"] >= 100:
            figure = f"{row['figure']:,.0f}"
        limit = "" if row["limit"] is None else "5 %" if memory else f"{row['limit']:,.0f}"
        table.append([row["what"], figure, limit, f"{row['figure']:.1%} off" if memory else ""])
    return table


def markdown() -> str:
    """The table of docs/speed.md: launches, waits and copies."""
    results = read_results("null_gpu")
    told = [row for row in results["rows"] if "bytes" not in row and not row["what"].startswith("graph")]
    return markdown_table([line[:3] for line in lines(told)], results["machine"])


def too_high(row: Row) -> bool:
    """Whether a value is above its limit."""
    return row["limit"] is not None and row["figure"] > row["limit"]


def main() -> None:
    """Count everything, and write the results."""
    require_null_gpu()
    torch.backends.cuda.enable_cudnn_sdp(False)  # a null GPU has no cuDNN
    rows: list[Row] = []
    for section in (
        launch_rows,
        loss_head_rows,
        muon_rows,
        graph_rows,
        memory_rows,
        trainer_rows,
        generation_rows,
    ):
        new = list(section())
        print_table(lines(new))
        rows += new
    machine = describe("cuda") | {"device": "a null GPU, which calls itself H200"}
    write_results("null_gpu", {"machine": machine, "rows": rows})
    put_into(ROOT / "docs" / "speed.md", BEGIN, END, markdown())
    if failed := [row["what"] for row in rows if too_high(row)]:
        sys.exit(f"error: above their limits: {'; '.join(failed)}.")


if __name__ == "__main__":
    main()
