"""Convert a model between formats, with its tokenizer."""

from pathlib import Path

from gpt_lightning.console import say
from gpt_lightning.convert import grow_vocabulary, load_model, to_gguf, to_hf, to_native
from gpt_lightning.tokenizer import Tokenizer
from running.config.command_configs import ConvertConfig
from running.training.find_tokenizer import load_model_tokenizer


def convert_model(config: ConvertConfig) -> None:
    """Convert a model; see `running.commands.convert.convert`."""
    source, target = config.input, config.output or Path("exported") / f"{config.input.stem}_{config.format}"
    quantization = config.quantization or "f32"
    model = load_model(source)
    if config.vocab_size is not None:
        model = grow_vocabulary(model, config.vocab_size)
    tokenizer, why_none = _tokenizer(source, config.tokenizer.name)
    if config.format in ("gguf", "ollama"):
        if tokenizer is None:
            raise ValueError(f"format={config.format} needs the model's tokenizer: {why_none}")
        target = to_gguf(
            model,
            target,
            tokenizer=tokenizer,
            quantization=quantization,
            metadata={"name": source.name},
            ollama=config.format == "ollama",
        )
    elif config.format == "gpt_lightning":
        to_native(model, target, tokenizer)
    else:
        to_hf(model, target, tokenizer=tokenizer, format=config.format)
    written = (
        f"no tokenizer was written: {why_none}"
        if tokenizer is None
        else f"tokenizer {tokenizer.name}, {tokenizer.vocab_size:,} tokens"
    )
    is_gguf = config.format in ("gguf", "ollama")
    sizes, dtype = model.config, quantization if is_gguf else str(model.head.weight.dtype).removeprefix("torch.")
    say(
        f"wrote {target} in format {config.format}, from {source}: {model.n_parameters():,} parameters in {dtype}, "
        f"{sizes.n_layers} layers of {sizes.n_heads} heads, vocabulary of {sizes.vocab_size:,}\n{written}"
    )


def _tokenizer(source: Path, name: str | None) -> tuple[Tokenizer | None, str]:
    """The tokenizer to write with the model, or None and the reason. A tokenizer requested by name must exist."""
    try:
        tokenizer = load_model_tokenizer(source, name)
    except ValueError as error:
        if name is not None:
            raise
        return None, str(error)  # the model is useful without it
    return tokenizer, ""
