"""What the rows of the speed table train: GPT-2 124M with 1,024 tokens, ours with various settings, and peers."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.training import litgpt_model, transformers_model
from data_modules.sequence_reader import document_borders
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import choose_backend
from gpt_lightning.model.loss_kernels import choose_loss_kernel
from gpt_lightning.model.model_size import build_meta_model, flops_per_token
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from running.training.builders import build_optimizer, build_parameter_groups

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "vocab_size": 50304, "max_seq_len": 1024, "batch": 32}
REHEARSED = {"n_layers": 2, "d_model": 512, "n_heads": 8, "vocab_size": 1024, "max_seq_len": 64, "batch": 2}
OURS, TRANSFORMERS = "ours, compiled", "transformers, compiled"
ROWS: dict[str, dict[str, Any]] = {
    OURS: {"compile": True},
    TRANSFORMERS: {"who": "transformers", "compile": True},
    "litgpt, compiled": {"who": "litgpt", "compile": True},
    "nanogpt, compiled": {"who": "nanogpt", "compile": True},
    "ours": {},
    "ours, loss kernel torch, compiled": {"compile": True, "loss_kernel": "torch"},
    "ours, sdpa_cudnn, compiled": {"compile": True, "attention": "sdpa_cudnn"},
    "ours, modern_124m, compiled": {"compile": True, "model": "modern_124m"},
    "ours, Muon, compiled": {"compile": True, "optimizer": "muon"},
    "ours, 8-bit AdamW, compiled": {"compile": True, "optimizer": "adamw_8bit"},
    "ours, recompute=blocks, compiled": {"compile": True, "recompute": True},
    "ours, fp16, compiled": {"compile": True, "precision": "16-mixed"},
    "transformers": {"who": "transformers", "compile": False},
}
PEERS = [name for name, row in ROWS.items() if "who" in row]
_EOT_EVERY = 500  # tokens per document, if documents are kept apart


class Contestant(NamedTuple):
    """A model, its loss and its optimizer."""

    model: nn.Module
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    optimizer: Any
    flops_per_token: int
    """FLOPs per token of the shape from `gpt_lightning.model.model_size`, the same for all; other models of ours have
    their own."""
    chose: dict[str, str]
    """The choices that `auto` made."""


def build(row: dict[str, Any], shape: dict[str, int], ids: Tensor, *, nanogpt: str | None) -> Contestant:
    """Build the contestant of a row, on the device of its training ids (batch, time)."""
    device = ids.device.type
    torch.manual_seed(0)
    if row.get("who", "ours") == "ours":
        return _ours(row, shape, ids, device)
    if row["who"] == "nanogpt":
        make, loss = _nanogpt(shape, nanogpt)
    else:
        make, loss = {"transformers": transformers_model, "litgpt": litgpt_model}[row["who"]](shape)
    model = make().to(device).train()
    if row["compile"]:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    return Contestant(model, loss, optimizer, flops_per_token(build_meta_model(model_config({}, shape))), {})


def model_config(row: dict[str, Any], shape: dict[str, int]) -> GPTConfig:
    """Config of our model: a choice of conf/model with this shape."""
    return GPTConfig(**_config(row, shape)["model"], eot_id=0)


def _config(row: dict[str, Any], shape: dict[str, int]) -> dict[str, Any]:
    sizes = [f"model.{key}={value}" for key, value in shape.items() if key != "batch"]
    more = [f"model.{key}={row[key]}" for key in ("attention",) if key in row]
    chosen = [f"model={row.get('model', 'gpt2_124m')}", f"optimizer={row.get('optimizer', 'adamw')}"]
    return compose_config("train", [*chosen, *sizes, "tokenizer=gpt2", "model.dropout=0", *more])


def _ours(row: dict[str, Any], shape: dict[str, int], ids: Tensor, device: str) -> Contestant:
    settings, config = _config(row, shape), model_config(row, shape)
    model = GPT(config).to(device).train()
    kernel, _ = choose_loss_kernel(row.get("loss_kernel", "auto"), torch.device(device))
    model.loss_kernel, model.recompute = kernel, row.get("recompute", False)
    if row.get("compile"):
        model.compile_blocks()
    time, dtype = shape["max_seq_len"], torch.float16 if row.get("precision") == "16-mixed" else torch.bfloat16
    apart = not config.attend_across_documents
    documents = torch.zeros(1, time, dtype=torch.int64) if apart else None
    view = AttentionMask(time, time, first=documents)
    attention, why = choose_backend(config.attention, torch.device(device), dtype, config.d_head, view)
    if config.attention not in ("auto", attention):
        raise ValueError(why)
    run, precision = RunConfig.of(settings), row.get("precision", "bf16-mixed")
    optimizer = build_optimizer(run.optimizer, precision)(build_parameter_groups(run)(model))

    # the data loader finds them before the copy to the device
    borders = torch.from_numpy(document_borders(ids.cpu().numpy(), 0)).to(device) if apart else None

    def loss(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
        made = model.loss_sum(ids, targets, None, borders)  # type: ignore[operator]
        value: Tensor = made.objective / targets.numel()
        return value

    chose = {"attention": attention, "loss_kernel": kernel}
    return Contestant(model, loss, optimizer, flops_per_token(model), chose)


def tokens(row: dict[str, Any], shape: dict[str, int], device: str) -> Tensor:
    """Random ids, (batch, time + 1). If documents are kept apart, the id 0 starts one."""
    ids = torch.randint(1, shape["vocab_size"], (shape["batch"], shape["max_seq_len"] + 1))
    if row.get("model") == "modern_124m":
        ids[torch.rand(ids.shape) < 1 / _EOT_EVERY] = 0
    return ids.to(device)


def _nanogpt(shape: dict[str, int], folder: str | None) -> tuple[Any, Any]:
    """nanoGPT's model, from model.py in a folder."""
    if folder is None:
        raise ValueError("--nanogpt names no folder with its model.py")
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(folder) / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks up its module there
    spec.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=shape["max_seq_len"],
        vocab_size=shape["vocab_size"],
        n_layer=shape["n_layers"],
        n_head=shape["n_heads"],
        n_embd=shape["d_model"],
        dropout=0.0,
        bias=True,
    )
    return lambda: module.GPT(config), lambda model, ids, targets: model(ids, targets)[1]
