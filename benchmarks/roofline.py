"""python -m benchmarks.roofline: an upper bound of the MFU of a training step of GPT-2 124M.

This is an estimate from counts, not a measurement. It assumes that matrix products reach a fraction of the data sheet's
peak and everything else a fraction of its memory bandwidth, that nothing overlaps, and that the host costs nothing.
Torch's inductor counts the bytes read and written by the fused kernels of compiled blocks on a null GPU (see
`cuda_call_counter`); the rest is counted by hand below. Prints the table of docs/speed.md and writes it there.
"""

import logging
from typing import Any, NamedTuple

import torch
from torch._inductor import compile_fx
from torch._inductor.graph import GraphLowering

from benchmarks.count_cuda_calls import BATCH, on_gpu, one_pass, shipped
from benchmarks.cuda_call_counter import require_null_gpu
from benchmarks.tables import ROOT, Lines, markdown_table, print_table, put_into
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.model_size import build_meta_model, flops_per_token

BEGIN, END = "<!-- made by python -m benchmarks.roofline -->", "<!-- end of the roofline -->"


class Ceiling(NamedTuple):
    """Data sheet of a GPU, and the assumed fractions of it."""

    flops: float
    """Dense FLOP/s in bf16."""
    bandwidth: float
    """Bytes per second."""
    products: float = 0.75
    attention: float = 0.4
    memory: float = 0.85


CEILINGS = {
    "H200": Ceiling(989e12, 4.8e12),
    "H100 SXM": Ceiling(989e12, 3.35e12),
    "A100 40GB": Ceiling(312e12, 1.555e12, products=0.85, attention=0.5),
}


class Counts(NamedTuple):
    """Counts of one step of 32 sequences."""

    products: float
    """FLOPs of matrix products."""
    attention: float
    """FLOPs of attention kernels; causal ones skip half of them."""
    in_blocks: float
    """Bytes read and written by fused kernels."""
    in_head: float
    around: float
    """Bytes for embedding, positions, last norm, and their gradients."""
    update: float
    """Bytes for clipping and AdamW."""


def count(name: str = "gpt2_124m") -> Counts:
    """Count a step on the null GPU, without dropout."""
    config = shipped(name, dropout=0.0)
    in_block = _bytes_of_fused_kernels(config)
    tokens, width = BATCH * config.max_seq_len, config.d_model
    attention = 12 * config.n_layers * width * config.max_seq_len  # as flops_per_token counts it
    parameters = sum(p.numel() for p in on_gpu(config).parameters())
    return Counts(
        products=tokens * (flops_per_token(build_meta_model(config)) - attention),
        # a causal kernel needs half, and its backward pass recomputes the scores: seven products where the custom
        # counts six
        attention=tokens * attention * 7 / 6 / 2,
        in_blocks=config.n_layers * in_block,
        # each logit (2 bytes) is read twice and written once; each chunk reads and writes the gradient of the weight
        in_head=6 * tokens * config.vocab_size + 8 * config.vocab_size * width * tokens / 8192,
        around=16 * 4 * tokens * width,
        # the norm reads a gradient, and scaling reads and writes it; AdamW reads four numbers per parameter and writes
        # three
        update=(3 + 7) * 4 * parameters,
    )


def _bytes_of_fused_kernels(config: GPTConfig) -> int:
    """Bytes in the forward and backward pass of one block, without matrix products and the attention kernel."""
    torch._inductor.config.fx_graph_cache = False  # graphs from a cache are not counted
    compile_fx.inductor_metrics_log.setLevel(logging.INFO)  # only logged graphs are counted
    fused: list[int] = []
    count_bytes = GraphLowering.count_bytes

    def count_fused(graph: Any) -> Any:
        fused.extend(node.get_read_write_buffers_sizes() for node in graph.scheduler.nodes if not node.is_extern())
        return count_bytes(graph)

    GraphLowering.count_bytes = count_fused  # type: ignore
    one_pass(on_gpu(config, compiled=True), BATCH)
    return sum(fused)


def lines(counts: Counts) -> Lines:
    """Milliseconds of each part, and the resulting MFU."""
    outside = "embedding, positions and last norm"
    parts = ("products", "attention", "fused kernels of blocks", "loss kernel", outside, "update")
    head = "estimated for GPT-2 124M, 32 x 1,024 tokens, bf16, compiled"
    table = [[head, *(f"{part}, ms" for part in parts), "MFU, at most"]]
    model = build_meta_model(shipped("gpt2_124m"))
    for name, ceiling in CEILINGS.items():
        milliseconds = [
            1e3 * counts.products / (ceiling.flops * ceiling.products),
            1e3 * counts.attention / (ceiling.flops * ceiling.attention),
            *(1e3 * n / (ceiling.bandwidth * ceiling.memory) for n in counts[2:]),
        ]
        tokens = BATCH * model.config.max_seq_len
        mfu = flops_per_token(model) * tokens / (sum(milliseconds) / 1e3) / ceiling.flops
        table.append([name, *(f"{ms:.1f}" for ms in milliseconds), f"{mfu:.0%}"])
    return table


def main() -> None:
    """Print the table and write it into docs/speed.md."""
    require_null_gpu()
    torch.backends.cuda.enable_cudnn_sdp(False)  # a null GPU has no cuDNN
    table = lines(count())
    print_table(table)
    put_into(ROOT / "docs" / "speed.md", BEGIN, END, markdown_table(table, None))


if __name__ == "__main__":
    main()
