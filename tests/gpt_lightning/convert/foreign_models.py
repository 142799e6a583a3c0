"""RangeFlow-GPT and GPT-2.5, written in plain torch from their descriptions, as oracles for their weight files.

They share no code with ours: attention is a tril matrix, RoPE turns neighbouring dimensions as complex numbers.
"""

import torch
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, heads, time, d_head) each -> (batch, time, heads * d_head)."""
    time, d_head = q.shape[-2:]
    scores = (q @ k.transpose(-2, -1) / d_head**0.5).masked_fill(torch.tril(torch.ones(time, time)) == 0, -1e9)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def heads(x: Tensor, n_heads: int) -> Tensor:
    """(batch, time, d_model) -> (batch, heads, time, d_head)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


class RangeFlowAttention(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv_proj = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(attend(*(heads(part, self.n_heads) for part in self.qkv_proj(x).chunk(3, dim=-1))))


class RangeFlowFeedForward(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.linear2(0.5 * x * (1 + torch.erf(x / 2**0.5)))


class RangeFlowBlock(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attn = RangeFlowAttention(d_model, n_heads)
        self.ff = RangeFlowFeedForward(d_model, d_ff)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.ff(self.ln2(x))


class RangeFlow(nn.Module):
    def __init__(self, vocab_size: int, context: int, d_model: int, n_layers: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.token_embed = nn.Embedding(vocab_size, d_model)
        self.pos_embed = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(RangeFlowBlock(d_model, n_heads, d_ff) for _ in range(n_layers))
        self.ln_final = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        self.head.weight = self.token_embed.weight

    def forward(self, token_ids: Tensor) -> Tensor:
        x = self.token_embed(token_ids) + self.pos_embed(torch.arange(token_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_final(x))


class InterleavedRope(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, context: int, d_head: int, theta: float) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(context).float(), theta ** (-torch.arange(0, d_head, 2).float() / d_head))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, heads, time, d_head): dimensions 2j and 2j + 1 as one complex number, times e^(i angle)."""
        time = x.shape[-2]
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(
            self.cos[:time], self.sin[:time]
        )
        return torch.view_as_real(turned).flatten(-2)


class RootMeanSquareNorm(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.float().square().mean(-1, keepdim=True) + 1e-5).sqrt()


class GPT25Attention(nn.Module):
    def __init__(self, d_model: int, n_heads: int, rope: InterleavedRope) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.Wq, self.Wk, self.Wv, self.Wo = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        self.rope = rope

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(project(x), self.n_heads) for project in (self.Wq, self.Wk, self.Wv))
        return self.Wo(attend(self.rope(q), self.rope(k), v))


class GPT25FeedForward(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w1, self.w3 = (nn.Parameter(torch.empty(d_ff, d_model)) for _ in range(2))
        self.w2 = nn.Parameter(torch.empty(d_model, d_ff))

    def forward(self, x: Tensor) -> Tensor:
        gate = x @ self.w1.T
        return (gate * gate.sigmoid() * (x @ self.w3.T)) @ self.w2.T


class GPT25Block(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_ff: int, rope: InterleavedRope) -> None:
        super().__init__()
        self.norm_att, self.norm_ff = RootMeanSquareNorm(d_model), RootMeanSquareNorm(d_model)
        self.mhsa = GPT25Attention(d_model, n_heads, rope)
        self.ffn = GPT25FeedForward(d_model, d_ff)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mhsa(self.norm_att(x))
        return x + self.ffn(self.norm_ff(x))


class GPT25(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        context: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_ff: int,
        theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        rope = InterleavedRope(context, d_model // n_heads, theta)
        self.emb = nn.Embedding(vocab_size, d_model)
        self.tblocks = nn.ModuleList(GPT25Block(d_model, n_heads, d_ff, rope) for _ in range(n_layers))
        self.norm = RootMeanSquareNorm(d_model)
        self.linear = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        x = self.emb(token_ids)
        for block in self.tblocks:
            x = block(x)
        return self.linear(self.norm(x))
