"""Read and write Hugging Face model folders."""

from dataclasses import replace
from pathlib import Path

from gpt_lightning.convert.hf_architecture import check_expressible, with_default_values
from gpt_lightning.convert.hf_gpt2 import GPT2
from gpt_lightning.convert.hf_llama import LLAMA
from gpt_lightning.convert.model_folder_io import check_unoccupied, read_json, read_weights, to_json, write_model_folder
from gpt_lightning.convert.tokenizer_files import check_vocabulary_size, tokenizer_files
from gpt_lightning.convert.weight_renaming import dtype_name, to_our_names, to_their_names, without_prefix
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Tokenizer

ARCHITECTURES = {"gpt2": GPT2, "llama": LLAMA}


def from_hf(folder: str | Path) -> GPT:
    """Load a GPT-2 or Llama from a Hugging Face folder with safetensors files, sharded or not.

    Options that only affect training take the defaults of GPTConfig, except GPT-2's dropout, which is read.

    Args:
        folder: Contains config.json and model.safetensors or its shards.

    Returns:
        The model in eval mode, on the CPU, in the dtype of the files.

    Raises:
        ValueError: The folder has another format, config.json has an option that our model does not support, or a
            weight is missing, unknown or has an unexpected shape or dtype.
    """
    folder = Path(folder)
    path = folder / "config.json"
    options = read_json(path)
    architecture = ARCHITECTURES.get(str(options.get("model_type")))
    if architecture is None:
        raise ValueError(
            f"{path}: model_type is {options.get('model_type')!r}: it must be one of {', '.join(ARCHITECTURES)}."
        )
    try:
        options = with_default_values(architecture, options)
        config = architecture.read(options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from error
    eot_id = options["eos_token_id"]
    if isinstance(eot_id, int) and 0 <= eot_id < config.vocab_size:
        config = replace(config, eot_id=eot_id)
    weights = {key: w for key, w in read_weights(folder).items() if not architecture.derived.fullmatch(key)}
    is_bare = not any(key.startswith(architecture.prefix) for key in weights)
    table = without_prefix(architecture.table, architecture.prefix) if is_bare else architecture.table
    return to_our_names(config, weights, table, where=folder)


def to_hf(model: GPT, folder: str | Path, *, tokenizer: Tokenizer | None = None, format: str) -> None:
    """Write a model to a new folder for `transformers.AutoModelForCausalLM`, and for `AutoTokenizer` if a tokenizer is
    given.

    The written model computes the same logits for a single document. If a sequence contains several documents, each
    token attends to all tokens before it, even if the model was trained with attend_across_documents=False. Dropout is
    written for gpt2. The other options that only affect training (residual_init, z_loss, attention) are not written.

    Args:
        model: The model to export.
        folder: Where to write; it must not exist or must be empty.
        tokenizer: The model's tokenizer; None writes no tokenizer files.
        format: `gpt2` or `llama`. Only `llama` supports fewer key/value heads than query heads.

    Raises:
        ValueError: The format cannot express the model, the folder exists and is not empty, or the tokenizer has more
            ids than the model.
    """
    if format not in ARCHITECTURES:
        raise ValueError(f"format is {format!r}: it must be one of {', '.join(ARCHITECTURES)}.")
    architecture, config = ARCHITECTURES[format], model.config
    check_expressible(architecture.expressible(config), config, name=format)
    check_vocabulary_size(tokenizer, model)
    check_unoccupied(Path(folder))  # before the weights are copied, which takes time
    eot_id = config.eot_id if tokenizer is None else tokenizer.eot_id
    options = architecture.write(config) | {
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": eot_id,  # training data has the end-of-text id before each document
        "eos_token_id": eot_id,
        "torch_dtype": dtype_name(model.head.weight),  # the key of transformers 4, which transformers 5 still reads
    }
    texts = {"config.json": to_json(options)}
    if tokenizer is not None:
        texts |= tokenizer_files(tokenizer, max_seq_len=config.max_seq_len)
    write_model_folder(Path(folder), weights=to_their_names(model, architecture.table), texts=texts)
