"""Rename weights between our state dict and other formats.

A table has one entry per tensor of our model: our name, the name or names in the other format, and whether that format
stores the tensor transposed. If our tensor is a fused matrix, the other format has several matrices: the row blocks of
the fused matrix, from top to bottom. `N` stands for the block number. `to_our_names` and `to_their_names` use the same
table in opposite directions.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.part_registry import POSITIONS

EMBEDDING, HEAD = "embedding.weight", "head.weight"
_MOST_POSITIONS = 2**22
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class WeightMapping(NamedTuple):
    """One tensor of ours and its counterpart in another format."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False

    def of_block(self, number: int) -> "WeightMapping":
        """Return this mapping for one block, with the block's number in place of N."""
        theirs = tuple(key.replace(".N.", f".{number}.") for key in self.theirs)
        return WeightMapping(self.ours.replace(".N.", f".{number}."), theirs, self.transposed)


RenamingTable = tuple[WeightMapping, ...]


def without_prefix(table: RenamingTable, prefix: str) -> RenamingTable:
    """Return the table for files whose keys lack `prefix`."""
    return tuple(line._replace(theirs=tuple(key.removeprefix(prefix) for key in line.theirs)) for line in table)


def to_our_names(config: GPTConfig, weights: Mapping[str, Tensor], table: RenamingTable, *, where: Path) -> GPT:
    """Build the GPT of `config` from the weights of another format.

    Args:
        config: Configuration of the model.
        weights: Name in the other format -> tensor on the CPU. A tied head may be included if it equals the embedding.
        table: The mapping of names.
        where: The file or folder with the weights, for error messages.

    Returns:
        The model in eval mode, on the CPU, in the dtype of the weights. It shares no memory with `weights`.

    Raises:
        ValueError: A weight is missing, unknown, not finite, or has an unexpected shape or dtype; the message names it.
    """
    check_sizes(config, weights, where=where)
    with torch.device("meta"):  # do not initialise weights that are replaced anyway
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
                    f"{where}: {copy} differs from {original}: they must be equal, because the model ties its head to "
                    "its embedding."
                )
    if config.tie_embeddings:
        ours[HEAD] = ours[EMBEDDING]
    # The angles of RoPE are computed, so they are not in any file.
    model.positions = POSITIONS[config.position](
        max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_head
    )
    model.load_state_dict(ours, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embedding.weight
    return model.eval()


def check_sizes(config: GPTConfig, weights: Mapping[str, Tensor], *, where: Path) -> None:
    """Check, before a model is built, that the weights are large enough for the sizes in the config.

    Args:
        config: Configuration of the model.
        weights: All weights of the model.
        where: The file or folder with the weights, for error messages.

    Raises:
        ValueError: There are more layers than tensors, a size exceeds the number of all weights together, or
            max_seq_len exceeds 4,194,304. (RoPE has no weights that could bound it.)
    """
    n_numbers = sum(weight.numel() for weight in weights.values())
    bounds = {"n_layers": (len(weights), f"the number of tensors, {len(weights):,}")}
    bounds |= {name: (n_numbers, f"the number of weights, {n_numbers:,}") for name in ("vocab_size", "d_model", "d_ff")}
    bounds["max_seq_len"] = (_MOST_POSITIONS, f"{_MOST_POSITIONS:,}, the largest context length supported")
    for name, (most, why) in bounds.items():
        if getattr(config, name) > most:
            raise ValueError(
                f"{where}: {name} is {getattr(config, name):,}: it must be at most {why}. The config is damaged or "
                "belongs to another model."
            )


def to_their_names(model: GPT, table: RenamingTable) -> dict[str, Tensor]:
    """Copy the weights of a model to the CPU, under the names of another format. A tied head is omitted.

    Raises:
        ValueError: A weight has a dtype other than fp32, bf16 and fp16, which could not be read again.
    """
    weights = model.state_dict()
    for key, weight in weights.items():
        if weight.dtype not in DTYPES:
            raise ValueError(
                f"{key} is {dtype_name(weight)}: the dtype must be {' or '.join(DTYPES.values())} to write a model."
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
    """Return the number of rows and columns of a matrix that determines a size of the model.

    Raises:
        ValueError: There is no weight of this name, or the weight is not a matrix.
    """
    if key not in weights:
        raise ValueError(f"{where} lacks {key}: it is incomplete or has a different architecture.")
    if weights[key].dim() != 2:
        raise ValueError(f"{where}: {key} has shape {tuple(weights[key].shape)}: it must be a matrix.")
    rows, columns = weights[key].shape
    return rows, columns


def count_blocks(weights: Iterable[str], prefix: str) -> int:
    """Count the distinct block numbers that follow `prefix` in the names: 7 in "blocks.7.ln1.bias" for "blocks."."""
    after = {key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)}
    return sum(part.isdigit() for part in after)


def _lines(table: RenamingTable, config: GPTConfig) -> list[WeightMapping]:
    """Expand the table for all blocks of a model; a tied head has no entry."""
    lines: list[WeightMapping] = []
    for line in table:
        if ".N." in line.ours:
            lines += [line.of_block(number) for number in range(config.n_layers)]
        elif line.ours != HEAD or not config.tie_embeddings:
            lines.append(line)
    return lines


def _copies(table: RenamingTable) -> dict[str, str]:
    """Return {their name of the tied head: their name of the embedding}."""
    theirs = {line.ours: line.theirs[0] for line in table}
    return {theirs[HEAD]: theirs[EMBEDDING]}


def _shapes_of_parts(line: WeightMapping, shape: tuple[int, ...], config: GPTConfig) -> list[tuple[int, ...]]:
    """Return the shape of each of their tensors; stacked by rows, they form our tensor."""
    if len(line.theirs) == 1:
        return [shape]
    d_kv = config.kv_heads * config.d_head
    fused = {"qkv": (config.d_model, d_kv, d_kv), "gate_up": (config.d_ff, config.d_ff)}
    return [(n_rows, *shape[1:]) for n_rows in fused[line.ours.split(".")[-2]]]


def _refuse_other_keys(weights: Mapping[str, Tensor], wanted: list[str], known: set[str], where: Path) -> None:
    if missing := [key for key in wanted if key not in weights]:
        raise ValueError(
            f"{where} lacks {_some(missing)}: the model is incomplete, or the sizes in its config differ from its weights."
        )
    if strange := [key for key in weights if key not in known]:
        raise ValueError(
            f"{where} has {_some(strange)}, which the model does not have: it has a different architecture."
        )


def _check(weights: Mapping[str, Tensor], key: str, shape: tuple[int, ...], where: Path, *, same_dtype_as: str) -> None:
    weight = weights[key]
    if tuple(weight.shape) != shape:
        raise ValueError(
            f"{where}: {key} has shape {tuple(weight.shape)}: it must be {shape}, according to the sizes in the config."
        )
    if weight.dtype not in DTYPES:
        raise ValueError(f"{where}: {key} is {dtype_name(weight)}: it must be one of {', '.join(DTYPES.values())}.")
    if weight.dtype != weights[same_dtype_as].dtype:
        raise ValueError(
            f"{where}: {key} is {dtype_name(weight)} and {same_dtype_as} is {dtype_name(weights[same_dtype_as])}: all "
            "weights must have the same dtype."
        )
    if not bool(weight.isfinite().all()):
        raise ValueError(
            f"{where}: {key} contains NaN or infinity: all weights must be finite. Use an earlier checkpoint."
        )


def dtype_name(weight: Tensor) -> str:
    """Return the name of a weight's dtype as in JSON files and error messages, for example float32."""
    return str(weight.dtype).removeprefix("torch.")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
