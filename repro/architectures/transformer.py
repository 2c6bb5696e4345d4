"""The Transformer: Vaswani et al., arXiv 1706.03762, Section 3 (architecture), 5.4 (dropout) and Table 3 (variants).

`base` and `big`; each letter of Table 3 is an argument: `heads`, `d_k`, `d_v` (A, B), `N`, `d_model`, `d_ff` (C),
`dropout` (D), `positions=learned` (E). Where they are not said, d_k = d_v = d_model / heads, as in the table.

One embedding serves source, target and the layer before the softmax (Section 3.4), of `vocabulary` tokens: about
37,000 for English-German, 32,000 for English-French (Section 5.1); `shared=0` gives each its own. Projections of
attention have no biases, as the formulas of Section 3.2.2; the feed-forward layers have (Equation 2). A norm follows
each sum. Sentences of a batch are of one length: there is no mask for padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

NETS = ("base", "big")
ARGS = (
    "N",
    "d_ff",
    "d_k",
    "d_model",
    "d_v",
    "dropout",
    "heads",
    "length",
    "positions",
    "shared",
    "vocabulary",
    "width",
)

# Table 3: d_model, d_ff, h, P_drop; both have N = 6.
SIZES = {"base": (512, 2048, 8, 0.1), "big": (1024, 4096, 16, 0.3)}


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Positions of Section 3.5, (length, width): sines in the even columns, cosines in the odd."""
    position = torch.arange(length, device=like.device, dtype=like.dtype)[:, None]
    column = torch.arange(0, width, 2, device=like.device, dtype=like.dtype)
    angle = position / 10000 ** (column / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention (Section 3.2.2): queries of (N, L, width), keys and values of (N, M, width)."""

    def __init__(self, width: int, heads: int, d_k: int, d_v: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * d_k, bias=False)
        self.key = nn.Linear(width, heads * d_k, bias=False)
        self.value = nn.Linear(width, heads * d_v, bias=False)
        self.out = nn.Linear(heads * d_v, width, bias=False)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        q, k, v = (
            layer(t).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, t in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """A layer of the encoder, or of the decoder, which also attends to the encoder's `memory`. (N, L, width)."""

    def __init__(self, width: int, d_ff: int, heads: int, d_k: int, d_v: int, dropout: float, decoder: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.self_attention = Attention(width, heads, d_k, d_v)
        self.norm1 = nn.LayerNorm(width)
        if decoder:
            self.attention = Attention(width, heads, d_k, d_v)
            self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, d_ff), nn.ReLU(), nn.Linear(d_ff, width))
        self.norm3 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.drop(self.self_attention(x, x, causal=self.decoder)))
        if memory is not None:
            x = self.norm2(x + self.drop(self.attention(x, memory)))
        out: Tensor = self.norm3(x + self.drop(self.feed_forward(x)))
        return out


class Transformer(nn.Module):
    """A Transformer. Input (N, 2, L) of token ids, source and target; output (N, L, vocabulary) of logits.

    The target is read one place to the right, behind token 0, so that place i is predicted from those before it.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        heads: int,
        d_k: int,
        d_v: int,
        N: int,
        dropout: float,
        vocabulary: int,
        shared: int,
        positions: str,
        length: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.target_embedding = self.embedding if shared else nn.Embedding(vocabulary, d_model)
        self.output = nn.Linear(d_model, vocabulary, bias=False)
        for m in (self.embedding, self.target_embedding, self.output):
            nn.init.normal_(m.weight, std=d_model**-0.5)
        if shared:
            self.output.weight = self.embedding.weight
        self.positions = nn.Embedding(length, d_model) if positions == "learned" else None
        self.drop = nn.Dropout(dropout)
        sizes = (d_model, d_ff, heads, d_k, d_v, dropout)
        self.encoder, self.decoder = nn.Sequential(), nn.ModuleDict()
        for i in range(1, N + 1):
            self.encoder.add_module(str(i), Layer(*sizes, decoder=False))
            self.decoder[str(i)] = Layer(*sizes, decoder=True)

    def example(self, batch: int, input: int) -> Tensor:
        """Ids of source and target sentences of `input` tokens."""
        return torch.zeros(batch, 2, input, dtype=torch.long)

    def embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        """Embeddings times the root of their width (Section 3.4) and positions, of (N, L) ids."""
        x: Tensor = embedding(ids) * embedding.embedding_dim**0.5
        length, width = x.shape[1:]
        place = torch.arange(length, device=ids.device)
        x = x + (sinusoids(length, width, x) if self.positions is None else self.positions(place))
        out: Tensor = self.drop(x)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        memory = self.encoder(self.embed(self.embedding, ids[:, 0]))
        x = self.embed(self.target_embedding, F.pad(ids[:, 1, :-1], (1, 0)))
        for layer in self.decoder.values():
            x = layer(x, memory)
        logits: Tensor = self.output(x)
        return logits


def build(
    net: str,
    N: int = 6,
    d_model: int | None = None,
    d_ff: int | None = None,
    heads: int | None = None,
    d_k: int | None = None,
    d_v: int | None = None,
    dropout: float | None = None,
    vocabulary: int = 37000,
    shared: int = 1,
    positions: str = "sinusoids",
    length: int = 512,
    width: float = 1.0,
) -> Transformer:
    """Net `net` with what is given changed; `width` multiplies d_model and d_ff, `length` bounds learned positions."""
    if positions not in ("sinusoids", "learned"):
        raise ReproError(f"positions are sinusoids or learned, not {positions}")
    printed = SIZES[net]
    heads = heads or printed[2]
    d_model = round((d_model or printed[0]) * width)
    d_ff = round((d_ff or printed[1]) * width)
    if d_model % heads and not (d_k and d_v):
        raise ReproError(f"d_model {d_model} is no multiple of the {heads} heads")
    d_k, d_v = d_k or d_model // heads, d_v or d_model // heads
    dropout = printed[3] if dropout is None else dropout
    return Transformer(d_model, d_ff, heads, d_k, d_v, N, dropout, vocabulary, shared, positions, length)
