"""The sizes and choices that make a GPT."""

from dataclasses import dataclass

from gpt_lightning.model.attention import ATTENTION_BACKENDS
from gpt_lightning.model.feed_forward import FEED_FORWARDS
from gpt_lightning.model.norms import NORMS
from gpt_lightning.model.positions import POSITIONS


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Everything that decides a GPT's parameters and arithmetic.

    Raises:
        ValueError: a size is not positive, n_heads does not divide d_model, or a choice is unknown.
    """

    vocab_size: int
    """Rows of the embedding; at least the tokenizer's."""
    max_seq_len: int
    """Tokens that one forward pass can see."""
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    """Width inside the feed-forward."""
    norm: str = "layernorm"
    feed_forward: str = "gelu"
    position: str = "learned"
    bias: bool = True
    """Whether linear layers and norms have biases."""
    tie_embeddings: bool = True
    """Whether the head is the transposed embedding."""
    dropout: float = 0.0
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        for size in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff"):
            value = getattr(self, size)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"model.{size} is {value!r}: it must be a whole number, 1 or more.")
        if self.d_model % self.n_heads:
            raise ValueError(f"model.d_model is {self.d_model}, which model.n_heads={self.n_heads} does not divide.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}: it must be at least 0 and below 1.")
        for choice, known in (
            ("norm", NORMS),
            ("feed_forward", FEED_FORWARDS),
            ("position", POSITIONS),
            ("attention", ATTENTION_BACKENDS),
        ):
            if getattr(self, choice) not in known:
                raise ValueError(f"model.{choice} is {getattr(self, choice)!r}: it must be one of {', '.join(known)}.")
