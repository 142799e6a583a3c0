"""A GPT in one page. Its decisions:

* Pre-norm residual blocks, and one more norm before the head, as in GPT-2.
* Norm, feed-forward, positions and attention backend are chosen at construction, by name; `forward` has no `if`.
* The head has no bias. It is the transposed embedding unless `tie_embeddings` is off.
* Weights start as N(0, 0.02); the projections back into the residual stream as N(0, 0.02 / sqrt(2 n_layers)), so that the
  stream's variance does not grow with depth (GPT-2's scheme). Biases start at 0, norms as the identity.
* The loss never holds the logits of a whole batch (`loss_head.py`).
"""

import math

import torch
from torch import Tensor, nn

from gpt_lightning.model.attention import CausalSelfAttention
from gpt_lightning.model.config import GPTConfig
from gpt_lightning.model.feed_forward import FEED_FORWARDS
from gpt_lightning.model.loss_head import cross_entropy_sum
from gpt_lightning.model.norms import NORMS
from gpt_lightning.model.positions import POSITIONS, Positions

INIT_STD = 0.02


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GPTConfig, positions: Positions) -> None:
        super().__init__()
        self.norm_attention = NORMS[config.norm](config.d_model, bias=config.bias)
        self.attention = CausalSelfAttention(
            d_model=config.d_model,
            n_heads=config.n_heads,
            bias=config.bias,
            dropout=config.dropout,
            backend=config.attention,
            positions=positions,
        )
        self.norm_feed_forward = NORMS[config.norm](config.d_model, bias=config.bias)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config.d_model, config.d_ff, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


class GPT(nn.Module):
    """A decoder-only transformer over token ids."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = POSITIONS[config.position](
            max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_model // config.n_heads
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, self.positions) for _ in range(config.n_layers))
        self.norm = NORMS[config.norm](config.d_model, bias=config.bias)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self._initialise()

    def forward(self, token_ids: Tensor) -> Tensor:
        """(batch, time) int64 -> logits (batch, time, vocab)."""
        return self.head(self.hidden(token_ids))

    def loss(self, token_ids: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean nats per loss-bearing token, a scalar; shapes as in `loss_sum`."""
        n_tokens = targets.numel() if mask is None else mask.sum().clamp(min=1)
        return self.loss_sum(token_ids, targets, mask) / n_tokens

    def loss_sum(self, token_ids: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """Nats summed over the loss-bearing tokens, a scalar.

        Args:
            token_ids: (batch, time) int64.
            targets: (batch, time) int64, the token after each.
            mask: (batch, time) bool, whether a target bears loss; None: all do.
        """
        x = self.hidden(token_ids).flatten(0, 1)
        return cross_entropy_sum(x, self.head.weight, targets.flatten(), None if mask is None else mask.flatten())

    def hidden(self, token_ids: Tensor) -> Tensor:
        """(batch, time) int64 -> what the head reads, (batch, time, d_model).

        Raises:
            ValueError: there are more tokens than the model can see at once.
        """
        if token_ids.shape[1] > self.config.max_seq_len:
            raise ValueError(
                f"{token_ids.shape[1]} tokens are more than the model's max_seq_len {self.config.max_seq_len}."
            )
        x = self.dropout(self.positions.embed(self.embedding(token_ids)))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def n_parameters(self) -> int:
        """Parameters, a tied one counted once."""
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def _initialise(self) -> None:
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, residual_std if name.endswith(".out.weight") else INIT_STD)
            elif name.endswith("bias"):
                parameter.zero_()
