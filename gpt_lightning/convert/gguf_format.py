"""GGUF, the file format of llama.cpp, Ollama and LM Studio. One table per architecture maps weight names.

llama.cpp has a fixed set of architectures. Two of them compute what some of our models compute: `gpt2` and `llama`.
llama.cpp's RoPE for `llama` pairs neighbouring dimensions, so the rows of queries and keys are reordered.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt_lightning.convert.gguf_tokenizer import add_tokenizer
from gpt_lightning.convert.hf_architecture import check_expressible
from gpt_lightning.convert.hf_llama import LLAMA
from gpt_lightning.convert.model_folder_io import check_unoccupied, new_folder
from gpt_lightning.convert.ollama_modelfile import ollama_modelfile
from gpt_lightning.convert.tokenizer_files import check_vocabulary_size
from gpt_lightning.convert.weight_renaming import EMBEDDING, HEAD, RenamingTable, WeightMapping, to_their_names
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.norms import EPS
from gpt_lightning.model.positions import ROPE_THETA
from gpt_lightning.tokenizer import Tokenizer

QUANTIZATIONS = ("f32", "f16", "q8_0")


class GGUFArchitecture(NamedTuple):
    """How one of llama.cpp's architectures stores our weights, and which of our models it can represent."""

    table: RenamingTable
    expressible: Callable[[GPTConfig], Mapping[str, tuple[Any, ...]]]
    """Our options -> the values that the architecture supports."""
    swaps_rotary_pairs: bool
    """Whether RoPE pairs dimensions 2j and 2j + 1 of queries and keys, instead of j and j + d_head/2."""


def _linear(ours: str, theirs: str, *, bias: bool) -> RenamingTable:
    kinds = ("weight", "bias") if bias else ("weight",)
    return tuple(WeightMapping(f"blocks.N.{ours}.{kind}", (f"blk.N.{theirs}.{kind}",)) for kind in kinds)


_QKV = ("blk.N.attn_q.weight", "blk.N.attn_k.weight", "blk.N.attn_v.weight")
ARCHITECTURES = {
    "gpt2": GGUFArchitecture(
        table=(
            WeightMapping(EMBEDDING, ("token_embd.weight",)),
            WeightMapping("positions.weight", ("position_embd.weight",)),
            *_linear("norm_attention", "attn_norm", bias=True),
            *_linear("attention.qkv", "attn_qkv", bias=True),
            *_linear("attention.out", "attn_output", bias=True),
            *_linear("norm_feed_forward", "ffn_norm", bias=True),
            *_linear("feed_forward.up", "ffn_up", bias=True),
            *_linear("feed_forward.out", "ffn_down", bias=True),
            WeightMapping("norm.weight", ("output_norm.weight",)),
            WeightMapping("norm.bias", ("output_norm.bias",)),
            WeightMapping(HEAD, ("output.weight",)),
        ),
        expressible=lambda config: {
            "norm": ("layernorm",),
            "feed_forward": ("gelu_tanh",),
            "position": ("learned",),
            "bias": (True,),
            "qk_norm": (False,),
            "n_kv_heads": (None, config.n_heads),
            "logit_soft_cap": (None,),
        },
        swaps_rotary_pairs=False,
    ),
    "llama": GGUFArchitecture(
        table=(
            WeightMapping(EMBEDDING, ("token_embd.weight",)),
            *_linear("norm_attention", "attn_norm", bias=False),
            WeightMapping("blocks.N.attention.qkv.weight", _QKV),
            *_linear("attention.out", "attn_output", bias=False),
            *_linear("norm_feed_forward", "ffn_norm", bias=False),
            WeightMapping("blocks.N.feed_forward.gate_up.weight", ("blk.N.ffn_gate.weight", "blk.N.ffn_up.weight")),
            *_linear("feed_forward.out", "ffn_down", bias=False),
            WeightMapping("norm.weight", ("output_norm.weight",)),
            WeightMapping(HEAD, ("output.weight",)),
        ),
        expressible=LLAMA.expressible,
        swaps_rotary_pairs=True,
    ),
}


def architecture_of(config: GPTConfig) -> str:
    """Return the llama.cpp architecture that computes the same logits as a model of this config.

    Args:
        config: Configuration of the model.

    Raises:
        ValueError: There is none.
    """
    name = "llama" if config.position == "rope" else "gpt2"
    check_expressible(ARCHITECTURES[name].expressible(config), config, name=f"gguf (architecture {name})")
    return name


def to_gguf(
    model: GPT,
    folder: str | Path,
    *,
    tokenizer: Tokenizer,
    quantization: str = "f32",
    metadata: Mapping[str, str] | None = None,
    ollama: bool = False,
) -> Path:
    """Write a model and its tokenizer to a GGUF file in a new folder.

    Rows of the embedding and the head beyond the tokenizer's ids are left out, because they are never sampled.

    Args:
        model: The model to export.
        folder: Where to write `<name of the folder>.gguf`; it must not exist or must be empty.
        tokenizer: The model's tokenizer.
        quantization: Type of the matrices: f32, f16 or q8_0 (8 bits, blocks of 32 with a scale). Norms, biases and
            position vectors are f32.
        metadata: Keys of `general.`, such as name, license and description.
        ollama: Whether to write a Modelfile for `ollama create` too.

    Returns:
        The path of the file.

    Raises:
        ValueError: llama.cpp cannot express the model or the tokenizer, the folder exists and is not empty, or a matrix
            has rows that q8_0 cannot divide into blocks.
    """
    try:
        import gguf
    except ImportError as error:
        raise ValueError("the package gguf is not installed: pip install -e '.[gguf]'.") from error
    config, folder = model.config, Path(folder)
    name = architecture_of(config)
    check_vocabulary_size(tokenizer, model)
    check_unoccupied(folder)  # before the weights are copied, which takes time
    writer = gguf.GGUFWriter(None, name)
    for key, text in (metadata or {}).items():
        writer.add_string(f"general.{key}", text)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, config)
    add_tokenizer(writer, tokenizer)
    for key, weight in _their_weights(model, name, tokenizer.vocab_size).items():
        array, kind = _quantized(key, weight, quantization)
        writer.add_tensor(key, array, raw_dtype=kind)
    file = f"{folder.name}.gguf"
    with new_folder(folder) as temporary:
        if ollama:
            modelfile = ollama_modelfile(file, tokenizer, max_seq_len=config.max_seq_len)
            (temporary / "Modelfile").write_text(modelfile, encoding="utf-8")
        writer.write_header_to_file(temporary / file)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / file


_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # LlamaFileType of llama.cpp


def _add_sizes(writer: Any, config: GPTConfig) -> None:
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.kv_heads)
    if config.position == "rope":
        writer.add_layer_norm_rms_eps(EPS)
        writer.add_rope_freq_base(ROPE_THETA)
        writer.add_rope_dimension_count(config.d_head)
    else:
        writer.add_layer_norm_eps(EPS)


def _their_weights(model: GPT, name: str, n_ids: int) -> dict[str, Tensor]:
    architecture, config = ARCHITECTURES[name], model.config
    weights = to_their_names(model, architecture.table)
    for key in ("token_embd.weight", "output.weight"):
        if key in weights:
            weights[key] = weights[key][:n_ids]
    if architecture.swaps_rotary_pairs:
        for key, weight in weights.items():
            if ".attn_q." in key or ".attn_k." in key:
                weights[key] = _neighbouring_pairs(weight, config.d_head)
    return weights


def _neighbouring_pairs(weight: Tensor, d_head: int) -> Tensor:
    """Reorder rows so that the pair (j, j + d_head/2) of each head becomes (2j, 2j + 1). (rows, columns)."""
    rows, columns = weight.shape
    return weight.view(rows // d_head, 2, d_head // 2, columns).transpose(1, 2).reshape(rows, columns)


def _quantized(key: str, weight: Tensor, quantization: str) -> tuple[np.ndarray, Any]:
    """(bytes or numbers as llama.cpp stores them, their type)."""
    import gguf

    array = weight.to(torch.float32).numpy()
    if array.ndim < 2 or key.startswith("position_embd") or quantization == "f32":
        return array, None
    if quantization == "f16":
        return array.astype(np.float16), None
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0]
    if array.shape[-1] % block:
        raise ValueError(
            f"{key} has rows of {array.shape[-1]} numbers: quantization=q8_0 needs a multiple of {block}. Set "
            "quantization=f16."
        )
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.quantize(array, kind), kind
