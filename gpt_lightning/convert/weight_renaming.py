"""Weights under other names.

A table has one line for each of our tensors: its name, its name elsewhere, and whether it is stored transposed there. Where
ours is one fused matrix, theirs are several, which stand in it one below the other. `N` is the number of a block.
`to_our_names` reads a table from right to left, `to_their_names` from left to right.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.positions import POSITIONS

EMBEDDING, HEAD = "embedding.weight", "head.weight"
_MOST_POSITIONS = 2**22
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class WeightMapping(NamedTuple):
    """One tensor of ours and what it is elsewhere."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False

    def of_block(self, number: int) -> "WeightMapping":
        """The line for one block."""
        theirs = tuple(key.replace(".N.", f".{number}.") for key in self.theirs)
        return WeightMapping(self.ours.replace(".N.", f".{number}."), theirs, self.transposed)


RenamingTable = tuple[WeightMapping, ...]


def without_prefix(table: RenamingTable, prefix: str) -> RenamingTable:
    """The table for files whose keys lack a prefix."""
    return tuple(line._replace(theirs=tuple(key.removeprefix(prefix) for key in line.theirs)) for line in table)


def to_our_names(config: GPTConfig, weights: Mapping[str, Tensor], table: RenamingTable, *, where: Path) -> GPT:
    """The GPT of `config` with these weights, in eval mode and in their dtype; it shares no memory with them.

    Args:
        weights: their tensors by their names, on the CPU. A tied head may be among them if it equals the embedding.
        where: the file or folder they come from, for errors.

    Raises:
        ValueError: a weight is missing, is one too many, or has another shape or dtype than the model's; it is named.
    """
    check_sizes(config, weights, where=where)
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced
        model = GPT(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    lines = _lines(table, config)
    assert {line.ours for line in lines} == shapes.keys() - ({HEAD} if config.tie_embeddings else set())
    copies = _copies(table) if config.tie_embeddings else {}
    wanted = [key for line in lines for key in line.theirs]
    _refuse_other_keys(weights, wanted, {*wanted, *copies}, where)
    ours = {}
    for line in lines:
        parts = []
        for key, shape in zip(line.theirs, _shapes_of_parts(line, shapes[line.ours], config), strict=True):
            _check(weights, key, shape[::-1] if line.transposed else shape, where, same_dtype_as=wanted[0])
            parts.append(weights[key].T if line.transposed else weights[key])
        ours[line.ours] = parts[0].clone(memory_format=torch.contiguous_format) if len(parts) == 1 else torch.cat(parts)
    for copy, original in copies.items():
        if copy in weights:
            _check(weights, copy, shapes[EMBEDDING], where, same_dtype_as=original)
            if not torch.equal(weights[copy], weights[original]):
                raise ValueError(
                    f"{where}: {copy} is not {original}, although the model ties its head to its embedding."
                )
    if config.tie_embeddings:
        ours[HEAD] = ours[EMBEDDING]
    # RoPE's angles are derived, so no file has them
    model.positions = POSITIONS[config.position](
        max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_head
    )
    model.load_state_dict(ours, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embedding.weight
    return model.eval()


def check_sizes(config: GPTConfig, weights: Mapping[str, Tensor], *, where: Path) -> None:
    """Before a model is built: its sizes must not be larger than its weights allow.

    Raises:
        ValueError: there are more layers than weights, a size is larger than all weights together, or the positions, which have
            no weights where they are rotary, are more than any such model has.
    """
    n_numbers = sum(weight.numel() for weight in weights.values())
    bounds = {"n_layers": (len(weights), f"the weights are {len(weights):,} tensors")}
    bounds |= {
        name: (n_numbers, f"the weights are {n_numbers:,} numbers") for name in ("vocab_size", "d_model", "d_ff")
    }
    bounds["max_seq_len"] = (_MOST_POSITIONS, f"more than {_MOST_POSITIONS:,} positions are not read")
    for name, (most, why) in bounds.items():
        if getattr(config, name) > most:
            raise ValueError(
                f"{where}: {name} is {getattr(config, name):,}, and {why}: the config is damaged, or belongs to another model."
            )


def to_their_names(model: GPT, table: RenamingTable) -> dict[str, Tensor]:
    """Copies of the model's weights under their names, on the CPU; a tied head is left out.

    Raises:
        ValueError: a weight has a dtype that is not written, because it would not be read again.
    """
    weights = model.state_dict()
    for key, weight in weights.items():
        if weight.dtype not in DTYPES:
            raise ValueError(
                f"{key} is {dtype_name(weight)}, and a model is written in {' or '.join(DTYPES.values())}."
            )
    theirs = {}
    for line in _lines(table, model.config):
        weight = weights[line.ours]
        shapes = _shapes_of_parts(line, tuple(weight.shape), model.config)
        parts = weight.split([shape[0] for shape in shapes]) if len(shapes) > 1 else (weight,)
        for key, part in zip(line.theirs, parts, strict=True):
            theirs[key] = (part.T if line.transposed else part).cpu().clone(memory_format=torch.contiguous_format)
    return theirs


def weight_shape(weights: Mapping[str, Tensor], key: str, *, where: Path) -> tuple[int, int]:
    """Rows and columns of a matrix that says how large the model is.

    Raises:
        ValueError: there is none of this name, or it is no matrix.
    """
    if key not in weights:
        raise ValueError(f"{where} lacks {key}: it is not the whole model, or another architecture.")
    if weights[key].dim() != 2:
        raise ValueError(f"{where}: {key} has shape {tuple(weights[key].shape)}, and must be a matrix.")
    rows, columns = weights[key].shape
    return rows, columns


def count_blocks(weights: Iterable[str], prefix: str) -> int:
    """How many numbers follow `prefix` in these names: "blocks." in "blocks.7.ln1.bias"."""
    after = {key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)}
    return sum(part.isdigit() for part in after)


def _lines(table: RenamingTable, config: GPTConfig) -> list[WeightMapping]:
    """The table spelled out for a model; a tied head has no line."""
    lines: list[WeightMapping] = []
    for line in table:
        if ".N." in line.ours:
            lines += [line.of_block(number) for number in range(config.n_layers)]
        elif line.ours != HEAD or not config.tie_embeddings:
            lines.append(line)
    return lines


def _copies(table: RenamingTable) -> dict[str, str]:
    """Their name of a tied head -> their name of the embedding."""
    theirs = {line.ours: line.theirs[0] for line in table}
    return {theirs[HEAD]: theirs[EMBEDDING]}


def _shapes_of_parts(line: WeightMapping, shape: tuple[int, ...], config: GPTConfig) -> list[tuple[int, ...]]:
    """The shape of each of their tensors; together they are our tensor, row by row."""
    if len(line.theirs) == 1:
        return [shape]
    d_kv = config.kv_heads * config.d_head
    fused = {"qkv": (config.d_model, d_kv, d_kv), "gate_up": (config.d_ff, config.d_ff)}
    return [(n_rows, *shape[1:]) for n_rows in fused[line.ours.split(".")[-2]]]


def _refuse_other_keys(weights: Mapping[str, Tensor], wanted: list[str], known: set[str], where: Path) -> None:
    if missing := [key for key in wanted if key not in weights]:
        raise ValueError(f"{where} lacks {_some(missing)}: it is not the whole model, or not one of these sizes.")
    if strange := [key for key in weights if key not in known]:
        raise ValueError(f"{where} has {_some(strange)}, which the model has no place for: is it another architecture?")


def _check(weights: Mapping[str, Tensor], key: str, shape: tuple[int, ...], where: Path, *, same_dtype_as: str) -> None:
    weight = weights[key]
    if tuple(weight.shape) != shape:
        raise ValueError(f"{where}: {key} has shape {tuple(weight.shape)}, and the model's sizes ask for {shape}.")
    if weight.dtype not in DTYPES:
        raise ValueError(f"{where}: {key} is {dtype_name(weight)}, and must be one of {', '.join(DTYPES.values())}.")
    if weight.dtype != weights[same_dtype_as].dtype:
        raise ValueError(
            f"{where}: {key} is {dtype_name(weight)} and {same_dtype_as} is {dtype_name(weights[same_dtype_as])}: save all "
            "weights in one dtype."
        )
    if not bool(weight.isfinite().all()):
        raise ValueError(
            f"{where}: {key} holds numbers that are not finite: its weights are ruined, take an earlier model."
        )


def dtype_name(weight: Tensor) -> str:
    """As JSON files and error messages have it: float32."""
    return str(weight.dtype).removeprefix("torch.")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
