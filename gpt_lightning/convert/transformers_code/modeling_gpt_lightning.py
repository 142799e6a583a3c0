"""A GPT of gpt-lightning in `transformers`. This file needs only torch and transformers.

    AutoModelForCausalLM.from_pretrained("this folder", trust_remote_code=True)

A decoder with pre-norm blocks. config.json says which norm, feed-forward and positions it has. Start a prompt with the
end-of-text id, which stood before each document in training.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

NORM_EPS = 1e-5
ROPE_THETA = 10_000.0


class GPTLightningConfig(PretrainedConfig):
    """Sizes and choices of the model, under the names of gpt-lightning. The names of transformers work too."""

    model_type = "gpt_lightning"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "intermediate_size": "d_ff",
        "max_position_embeddings": "max_seq_len",
    }

    def __init__(
        self,
        vocab_size: int = 50257,
        max_seq_len: int = 1024,
        d_model: int = 768,
        n_layers: int = 12,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_kv_heads: int | None = None,
        norm: str = "layernorm",
        feed_forward: str = "gelu",
        position: str = "learned",
        bias: bool = True,
        qk_norm: bool = False,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.max_seq_len = vocab_size, max_seq_len
        self.d_model, self.n_layers, self.d_ff = d_model, n_layers, d_ff
        self.n_heads, self.n_kv_heads = n_heads, n_heads if n_kv_heads is None else n_kv_heads
        self.norm, self.feed_forward, self.position = norm, feed_forward, position
        self.bias, self.qk_norm, self.logit_soft_cap = bias, qk_norm, logit_soft_cap
        super().__init__(**kwargs)

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


def new_norm(config: GPTLightningConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=NORM_EPS)
    return nn.LayerNorm(config.d_model, eps=NORM_EPS, bias=config.bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (j, j + head_dim/2) of (batch, heads, time, head_dim), in fp32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: GPTLightningConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.n_q, self.n_kv = config.n_heads, config.n_kv_heads
        rows = (self.n_q + 2 * self.n_kv) * config.head_dim
        self.qkv = nn.Linear(config.d_model, rows, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(
        self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: DynamicCache | None
    ) -> Tensor:
        batch, time, width = x.shape
        heads = self.qkv(x).view(batch, time, -1, self.config.head_dim).transpose(1, 2)
        qk, v = heads.split([self.n_q + self.n_kv, self.n_kv], dim=1)
        if self.config.qk_norm:
            qk = F.rms_norm(qk, (self.config.head_dim,))
        if rotation is not None:
            qk = rotate(qk, *rotation)
        q, k = qk.split([self.n_q, self.n_kv], dim=1)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.n_q != self.n_kv)
        return self.out(y.transpose(1, 2).reshape(batch, time, width))


class FeedForward(nn.Module):
    def __init__(self, config: GPTLightningConfig) -> None:
        super().__init__()
        self.kind = config.feed_forward
        if self.kind == "swiglu":
            self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=config.bias)
        else:
            self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.out = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "swiglu":
            gate, up = self.gate_up(x).chunk(2, dim=-1)
            return self.out(F.silu(gate) * up)
        hidden = self.up(x)
        if self.kind == "relu2":
            return self.out(F.relu(hidden).square())
        return self.out(F.gelu(hidden, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


class Block(nn.Module):
    def __init__(self, config: GPTLightningConfig, layer: int) -> None:
        super().__init__()
        self.norm_attention = new_norm(config)
        self.attention = Attention(config, layer)
        self.norm_feed_forward = new_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: DynamicCache | None
    ) -> Tensor:
        x = x + self.attention(self.norm_attention(x), mask, rotation, cache)
        return x + self.feed_forward(self.norm_feed_forward(x))


class LearnedPositions(nn.Module):
    def __init__(self, config: GPTLightningConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.max_seq_len, config.d_model))


class GPTLightningForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = GPTLightningConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _tied_weights_keys = {"head.weight": "embedding.weight"}

    def __init__(self, config: GPTLightningConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        if config.position == "learned":
            self.positions = LearnedPositions(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = new_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, value: Any) -> None:
        self.head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss if `labels` are given. Masked tokens must stand on the left.

        Args:
            input_ids: (batch, time).
            attention_mask: (batch, time with the cache), 0 for padding.
            position_ids: (batch, time); by default they count the tokens that are not padding.
            past_key_values: The cache of the tokens before.
            inputs_embeds: (batch, time, d_model), instead of input_ids.
            labels: (batch, time); -100 is ignored.
            use_cache: Whether a cache is returned; by default, config.use_cache and not in training.
            logits_to_keep: Number of last positions to compute logits for; 0: all.
        """
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        batch, time, _ = x.shape
        if past_key_values is None and (use_cache if use_cache is not None else not self.training):
            past_key_values = DynamicCache()
        n_before = 0 if past_key_values is None else past_key_values.get_seq_length()
        n_keys = n_before + time
        if attention_mask is None:
            attention_mask = torch.ones(batch, n_keys, dtype=torch.long, device=x.device)
        if position_ids is None:
            position_ids = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -time:]
        queries = torch.arange(n_before, n_keys, device=x.device)[:, None]
        keys = torch.arange(n_keys, device=x.device)[None]
        # (batch, 1, time, n_keys); a padding token sees itself, so that no row is empty
        mask = ((keys <= queries) & attention_mask[:, None, None, :].bool()) | (keys == queries)
        rotation = None
        if self.config.position == "learned":
            x = x + self.positions.weight[position_ids]
        else:
            rotation = self._rotation(position_ids)
        for block in self.blocks:
            x = block(x, mask, rotation, past_key_values)
        logits = self.head(self.norm(x[:, -logits_to_keep:] if logits_to_keep else x))
        if (cap := self.config.logit_soft_cap) is not None:
            logits = cap * torch.tanh(logits / cap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def _rotation(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (batch, 1, time, head_dim / 2)."""
        dimensions = torch.arange(0, self.config.head_dim, 2, dtype=torch.float64, device=position_ids.device)
        frequencies = ROPE_THETA ** (-dimensions / self.config.head_dim)
        angles = position_ids[:, None, :, None].double() * frequencies
        return angles.cos().float(), angles.sin().float()
