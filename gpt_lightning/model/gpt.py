"""The GPT model. Design decisions:

* Pre-norm residual blocks and a final norm before the head, as in GPT-2.
* Norm, feed-forward and positions are chosen by name at construction; `forward` does not branch on them.
* The head has no bias. Its weight is the embedding's unless `tie_embeddings` is off.
* Weights start as N(0, 0.02). Projections into the residual stream follow `residual_init`; the default divides their
  standard deviation by sqrt(2 n_layers), so that the variance of the stream does not grow with depth. Biases start at
  0, norms as the identity.
* If documents are separate, the end-of-text id before each document marks the border. Positions are not reset.
* The loss never stores the logits of a whole batch (`loss_head.py`).
* With a `KVCache`, the given tokens follow the cached ones; the code is otherwise the same.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt_lightning.model.attention import AttentionContext, CausalSelfAttention
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import choose_backend
from gpt_lightning.model.config import GPTConfig
from gpt_lightning.model.cpu_linear import FastLinear, working_dtype
from gpt_lightning.model.kv_cache import KVCache, LayerCache, document_starts
from gpt_lightning.model.loss_head import SummedLoss, cross_entropy_sum
from gpt_lightning.model.part_registry import BACKENDS, FEED_FORWARDS, NORMS, POSITIONS
from gpt_lightning.model.positions import Positions

INIT_STD = 0.02


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_attention = NORMS[config.norm](config.d_model, bias=config.bias)
        self.attention = CausalSelfAttention(
            d_model=config.d_model,
            n_heads=config.n_heads,
            n_kv_heads=config.kv_heads,
            bias=config.bias,
            dropout=config.dropout,
            qk_norm=config.qk_norm,
        )
        self.norm_feed_forward = NORMS[config.norm](config.d_model, bias=config.bias)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config.d_model, config.d_ff, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, shared: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), shared, cache))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


class GPT(nn.Module):
    """A decoder-only transformer over token ids."""

    loss_kernel = "auto"
    """How losses and their gradient are computed from logits, see `loss_kernels`. The kernel does not affect the
    parameters.
    """
    recompute = False
    """Whether training stores only the input of each block and recomputes the rest in the backward pass."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions: Positions = POSITIONS[config.position](
            max_seq_len=config.max_seq_len, d_model=config.d_model, d_head=config.d_head
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = NORMS[config.norm](config.d_model, bias=config.bias)
        self.head = FastLinear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self._eot_id = None if config.attend_across_documents else config.eot_id
        self._initialise()

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute logits: (batch, time) int64 -> (batch, time, vocab)."""
        return self.logits(self.hidden(token_ids, cache))

    def loss(self, token_ids: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean loss in nats per loss-bearing token, plus any z-loss, a scalar; shapes as in `loss_sum`."""
        n_tokens = targets.numel() if mask is None else mask.sum().clamp(min=1)
        return self.loss_sum(token_ids, targets, mask).objective / n_tokens

    def loss_sum(
        self, token_ids: Tensor, targets: Tensor, mask: Tensor | None = None, borders: Tensor | None = None
    ) -> SummedLoss:
        """Sum the training objective and the loss in nats over the loss-bearing tokens.

        Args:
            token_ids: (batch, time) int64.
            targets: (batch, time) int64, the token after each.
            mask: (batch, time) bool, whether a target bears loss; None: all do.
            borders: (documents + 1,) int32, see `AttentionMask`; None: computed here if documents are separate.
        """
        return cross_entropy_sum(
            self.hidden(token_ids, borders=borders).flatten(0, 1),
            self.head.weight,
            targets.flatten(),
            None if mask is None else mask.flatten(),
            soft_cap=self.config.logit_soft_cap,
            z_loss=self.config.z_loss,
            kernel=self.loss_kernel,
        )

    def hidden(self, token_ids: Tensor, cache: KVCache | None = None, *, borders: Tensor | None = None) -> Tensor:
        """Compute the hidden states that the head reads: (batch, time) int64 -> (batch, time, d_model).

        Args:
            token_ids: (batch, time) int64.
            cache: Keys and values of the tokens before; None: there are none.
            borders: As in `loss_sum`.

        Raises:
            ValueError: There are more tokens than max_seq_len, cached ones included.
        """
        n_keys = token_ids.shape[1] if cache is None else cache.n_keys_after(token_ids.shape[1])
        if n_keys > self.config.max_seq_len:
            raise ValueError(
                f"the input has {n_keys} tokens: it must have at most max_seq_len={self.config.max_seq_len}."
            )
        at, view = self._place(token_ids, borders) if cache is None else cache.place(token_ids, self._eot_id)
        x = self.dropout(self.positions.embed(self.embedding(token_ids), at))
        dropout = self.config.dropout if self.training else 0.0
        name, _ = choose_backend(
            self.config.attention, x.device, working_dtype(x), self.config.d_head, view, dropout=dropout
        )
        backend = BACKENDS[name]
        shared = AttentionContext(backend, backend.plan(view, x.device), self.positions.rotation(at))
        again = self.recompute and cache is None and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks):
            if again:
                x = checkpoint(block, x, shared, use_reentrant=False)
            else:
                x = block(x, shared, None if cache is None else cache.layer(number, at, view.n_keys))
        return self.norm(x)

    def logits(self, x: Tensor) -> Tensor:
        """Compute logits from hidden states, (…, d_model) -> (…, vocab), with soft-capping if configured."""
        cap = self.config.logit_soft_cap
        return self.head(x) if cap is None else cap * torch.tanh(self.head(x) / cap)

    def empty_cache(self, *, batch: int, room: int) -> KVCache:
        """Return a cache for `batch` sequences of up to `room` tokens, in the model's dtype and on its device."""
        config, weight = self.config, self.head.weight
        shape = (config.n_layers, batch, room, config.kv_heads, config.d_head)
        return KVCache(*(torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2)))

    def compile_blocks(self) -> None:
        """Compile the blocks in place with torch.compile. Parameter names do not change, so checkpoints stay
        compatible.

        Each block is compiled separately, because all blocks then share one compilation, and sharded blocks are
        gathered one at a time. The loss head is not compiled; it consists of loops of matrix products.
        """
        for block in self.blocks:
            block.compile()

    def n_parameters(self) -> int:
        """Return the number of parameters, counting tied ones once."""
        return sum(p.numel() for p in self.parameters())

    def _place(self, token_ids: Tensor, borders: Tensor | None) -> tuple[slice, AttentionMask]:
        """Return the positions of whole sequences, and the mask of their tokens."""
        time = token_ids.shape[1]
        if self._eot_id is None:
            return slice(0, time), AttentionMask(time, time)
        positions = torch.arange(time, device=token_ids.device)
        first = document_starts(token_ids, positions, self._eot_id, torch.zeros_like(token_ids[:, :1]))
        return slice(0, time), AttentionMask(time, time, first=first, borders=borders)

    @torch.no_grad()
    def _initialise(self) -> None:
        if self.embedding.weight.is_meta:  # meta tensors have no values
            return
        residual_std = {"scaled": INIT_STD / math.sqrt(2 * self.config.n_layers), "plain": INIT_STD, "zero": 0.0}
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                is_residual = name.endswith(".out.weight")
                parameter.normal_(0.0, residual_std[self.config.residual_init] if is_residual else INIT_STD)
            elif name.endswith("bias"):
                parameter.zero_()
