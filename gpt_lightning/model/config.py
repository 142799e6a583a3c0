"""The configuration of a GPT. Importing this module does not import torch."""

from dataclasses import dataclass

from gpt_lightning.model.part_registry import BACKENDS, FEED_FORWARDS, NORMS, POSITIONS

RESIDUAL_INITS = ("scaled", "plain", "zero")


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """All settings that determine a GPT's parameters and arithmetic.

    Raises:
        ValueError: A size is not positive or does not fit another, or a choice is unknown.
    """

    vocab_size: int
    """Number of rows of the embedding; at least the number of the tokenizer's ids."""
    max_seq_len: int
    """Context length: the maximum number of tokens in a forward pass."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of blocks."""
    n_heads: int
    """Number of query heads in each attention layer."""
    d_ff: int
    """Width of the hidden layer of the feed-forward."""
    n_kv_heads: int | None = None
    """Number of key/value heads, each shared by n_heads / n_kv_heads query heads (grouped-query attention,
    arXiv:2305.13245); None: n_heads."""
    norm: str = "layernorm"
    """Normalisation layers: `layernorm` or `rmsnorm`."""
    feed_forward: str = "gelu"
    """Feed-forward layers: `gelu`, `gelu_tanh` (GPT-2's), `swiglu` or `relu2`."""
    position: str = "learned"
    """Position encoding: `learned` or `rope` (rotary)."""
    bias: bool = True
    """Whether linear layers and norms have biases."""
    qk_norm: bool = False
    """Whether queries and keys are RMS-normalised per head, without gains (arXiv:2010.04245)."""
    tie_embeddings: bool = True
    """Whether the head's weight is the embedding's weight."""
    residual_init: str = "scaled"
    """Initialisation of projections into the residual stream: `scaled`, N(0, 0.02 / sqrt(2 n_layers)) as in GPT-2;
    `plain`, N(0, 0.02) as all other weights; `zero`, so that each block starts as the identity (arXiv:2203.03466)."""
    logit_soft_cap: float | None = None
    """Limits logits to (-cap, cap) with a tanh (arXiv:2408.00118); None: no limit."""
    z_loss: float = 0.0
    """Weight of logsumexp(logits)^2 in the training objective (arXiv:2204.02311)."""
    attend_across_documents: bool = True
    """Whether a token attends to earlier documents in the same sequence."""
    eot_id: int | None = None
    """The tokenizer's end-of-text id, which precedes each document. Required if attend_across_documents is False."""
    dropout: float = 0.0
    """Probability that dropout sets an activation to zero."""
    attention: str = "auto"
    """Attention backend: `manual`, `sdpa`, `sdpa_flash`, `sdpa_cudnn`, `sdpa_efficient`, `flash`, or `auto`. The
    backend does not affect the parameters.
    """

    def __post_init__(self) -> None:
        sizes = ["vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "d_ff"]
        for size in [*sizes, *(["n_kv_heads"] if self.n_kv_heads is not None else [])]:
            value = getattr(self, size)
            if type(value) is not int or value < 1:
                raise ValueError(f"model.{size} is {value!r}: it must be a whole number, 1 or more.")
        if self.d_model % self.n_heads:
            raise ValueError(f"model.d_model is {self.d_model}: it must be a multiple of model.n_heads={self.n_heads}.")
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"model.n_heads is {self.n_heads}: it must be a multiple of model.n_kv_heads={self.n_kv_heads}."
            )
        for switch in ("bias", "qk_norm", "tie_embeddings", "attend_across_documents"):
            if not isinstance(getattr(self, switch), bool):
                raise ValueError(f"model.{switch} is {getattr(self, switch)!r}: it must be true or false.")
        for number in ("dropout", "z_loss", *(["logit_soft_cap"] if self.logit_soft_cap is not None else [])):
            if not isinstance(getattr(self, number), int | float):
                raise ValueError(f"model.{number} is {getattr(self, number)!r}: it must be a number.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}: it must be at least 0 and below 1.")
        if self.logit_soft_cap is not None and not self.logit_soft_cap > 0:
            raise ValueError(f"model.logit_soft_cap is {self.logit_soft_cap}: it must be above 0, or null.")
        if not self.z_loss >= 0:
            raise ValueError(f"model.z_loss is {self.z_loss}: it must be 0 or more.")
        for choice, known in (
            ("norm", NORMS),
            ("feed_forward", FEED_FORWARDS),
            ("position", POSITIONS),
            ("residual_init", RESIDUAL_INITS),
            ("attention", (*BACKENDS, "auto")),
        ):
            if getattr(self, choice) not in list(known):
                own = "" if choice == "residual_init" else "; a part of your own needs +imports=[its_module]"
                raise ValueError(
                    f"model.{choice} is {getattr(self, choice)!r}: it must be one of {', '.join(known)}{own}."
                )
        if self.eot_id is not None and not isinstance(self.eot_id, int):
            raise ValueError(f"model.eot_id is {self.eot_id!r}: it must be a whole number, or null.")
        if not self.attend_across_documents and self.eot_id is None:
            raise ValueError(
                "model.eot_id is null: it must be the end-of-text id, because model.attend_across_documents=false "
                "separates documents by it."
            )

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.n_kv_heads or self.n_heads

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads
