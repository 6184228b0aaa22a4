"""Sparse Transformer: attention to about sqrt(n) of n earlier entries, at a cost that falls with them.

A stride l cuts the sequence into blocks of l entries. Entry i attends to A_i, a union of two sets (section 4.2):

    strided:  the last entries, i - l <= j <= i; and every l-th before them, (i - j) mod l = 0
    fixed:    its own block up to itself; and the last c entries of every earlier block, its summary

With l near sqrt(n) the scores cost O(n sqrt n). Both sets share one softmax: the merged heads of equation 8.

References:
    Generating Long Sequences with Sparse Transformers, Child, Gray, Radford, Sutskever, 2019.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.sequences import SequenceModel


def attention_mask(n, stride, pattern, summary=1, device=None):
    """What each of n entries attends to: `(n, n)`, True where row i attends to column j."""
    i, j = torch.arange(n, device=device)[:, None], torch.arange(n, device=device)
    if pattern == "strided":
        seen = (i - j <= stride) | ((i - j) % stride == 0)
    elif pattern == "fixed":
        seen = (i // stride == j // stride) | (j % stride >= stride - summary)
    else:
        seen = torch.ones(n, n, dtype=torch.bool, device=device)
    return seen & (j <= i)


def attended(i, stride, pattern, summary=1, device=None):
    """The columns of row i of the mask in rising order, without the mask."""
    begin = 0 if pattern == "dense" else max(0, i - stride) if pattern == "strided" else i - i % stride
    far = torch.arange(0, device=device)
    if pattern == "strided":
        far = torch.arange(i % stride, max(begin, i % stride), stride, device=device)
    if pattern == "fixed":
        far = torch.arange(begin, device=device).view(-1, stride)[:, stride - summary :].flatten()
    return torch.cat([far, torch.arange(begin, i + 1, device=device)])


def dense_attention(q, k, v, mask=None):
    """softmax(q k' / sqrt(d)) v over all columns, or those where `mask` is True: `(..., n, d)`, O(n^2)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def sparse_attention(q, k, v, stride, pattern, summary=1):
    """`dense_attention` under `attention_mask`, from the scores of attended blocks alone.

    Args:
        q, k, v: `(..., n, d)`.
        stride, pattern, summary: as in `SparseTransformer`; a stride of l costs n (2 l + n / l) scores where strided,
            n (l + c n / l) where fixed.
    """
    n = q.shape[-2]
    # Entries behind the last are attended to by none but themselves, and cut off.
    q, k, v = (F.pad(x, (0, 0, 0, -n % stride)).unflatten(-2, (-1, stride)) for x in (q / math.sqrt(q.shape[-1]), k, v))
    m, place = q.shape[-3], torch.arange(stride, device=q.device)  # (..., m blocks, places, d)
    block = torch.arange(m, device=q.device)
    if pattern == "strided":
        k_near, v_near = (torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[..., :-1, :, :], x], dim=-2) for x in (k, v))
        back = stride + place[:, None] - torch.arange(2 * stride, device=q.device)
        near_seen = (back >= 0) & (back <= stride) & ((block[:, None, None] > 0) | (back <= place[:, None]))
        # Every l-th entry is the same place of every block: attention among blocks, for each place alone. The block
        # before is near already.
        q_far, k_far, v_far = (x.transpose(-2, -3) for x in (q, k, v))
        far = (q_far @ k_far.transpose(-1, -2)).transpose(-2, -3)
        far_seen = (block[:, None] - block >= 2)[:, None]
    else:
        k_near, v_near, near_seen = k, v, place[:, None] >= place
        k_far, v_far = (x[..., stride - summary :, :].flatten(-3, -2)[..., None, :, :] for x in (k, v))
        far = q @ k_far.transpose(-1, -2)
        far_seen = (block[:, None] > block).repeat_interleave(summary, dim=1)[:, None]
    near = (q @ k_near.transpose(-1, -2)).masked_fill(~near_seen, -torch.inf)
    weights = torch.cat([near, far.masked_fill(~far_seen, -torch.inf)], dim=-1).softmax(-1)
    near, far = weights.tensor_split([near.shape[-1]], dim=-1)
    far = (far.transpose(-2, -3) @ v_far).transpose(-2, -3) if pattern == "strided" else far @ v_far
    return (near @ v_near + far).flatten(-3, -2)[..., :n, :]


class Block(nn.Module):
    """Attention and a two-layer network, each on normalized input and added to it (equations 12 to 15)."""

    def __init__(self, width, heads, attend):
        super().__init__()
        self.heads, self.attend = heads, attend
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h, cache=None, t=None, columns=None):
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is None:
            a = self.attend(q, k, v)
        else:
            cache[:, :, :, t] = torch.stack([k, v])[..., 0, :]
            a = dense_attention(q, *cache[..., columns, :])
        h = h + self.out(a.transpose(1, 2).flatten(2))
        return h + self.feed(h)


class SparseTransformer(SequenceModel):
    """Transformer decoder with factorized attention over sequences `(batch, length)`.

    Positions are embedded as the paper does for its patterns: one vector for the block, one for the place in it.

    Args:
        levels: size of the alphabet.
        length: longest sequence.
        width, heads, layers: of the network.
        pattern: `strided` (for data with a period, such as images), `fixed` (for text), or `dense`.
        stride: length of a block; the square root of `length`, rounded up, if not given.
        summary: entries of an earlier block that are attended to in the fixed pattern, the paper's c.
        context_dim, local_dim: as in `SequenceModel`.
    """

    def __init__(
        self, levels, length, width=64, heads=4, layers=4, pattern="strided", stride=None, summary=1, context_dim=0,
        local_dim=0,
    ):  # fmt: skip
        super().__init__(levels, context_dim, local_dim)
        stride = math.isqrt(length - 1) + 1 if stride is None else stride
        if pattern not in ("strided", "fixed", "dense"):
            raise ValueError(f"pattern must be strided, fixed or dense, got {pattern!r}")
        if not 1 <= summary <= stride:
            raise ValueError(f"1 <= summary <= stride is needed, got summary {summary} and stride {stride}")
        if width % heads:
            raise ValueError(f"heads must divide the width, got {heads} heads and width {width}")
        self.length, self.stride, self.pattern, self.summary, self.heads = length, stride, pattern, summary, heads
        self.embed = nn.Embedding(levels + 1, width)
        self.block, self.place = nn.Embedding(-(-length // stride), width), nn.Embedding(stride, width)
        self.source = nn.Linear(context_dim + local_dim, width) if context_dim + local_dim else None
        self.blocks = nn.ModuleList(Block(width, heads, self.attend) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, levels))

    def attend(self, q, k, v):
        if self.pattern == "dense":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return sparse_attention(q, k, v, self.stride, self.pattern, self.summary)

    def condition(self, batch, length, context=None, local=None):
        if length > self.length:
            raise ValueError(f"the model was built for sequences up to length {self.length}, got {length}")
        return super().condition(batch, length, context, local)

    def new_cache(self, batch, length):
        """Keys and values of every layer, `(layers, 2, batch, heads, length, width / heads)`, and the next entry."""
        weight = self.embed.weight
        size = (len(self.blocks), 2, batch, self.heads, length, weight.shape[1] // self.heads)
        return {"t": 0, "keys and values": weight.new_zeros(size)}

    def forward(self, previous, condition=None, cache=None):
        t = torch.arange(previous.shape[1], device=previous.device) + (cache["t"] if cache else 0)
        h = self.embed(previous) + self.block(t // self.stride) + self.place(t % self.stride)
        if condition is not None:
            h = h + self.source(condition.transpose(1, 2))
        if cache is None:
            for block in self.blocks:
                h = block(h)
        else:
            now, cache["t"] = cache["t"], cache["t"] + 1
            columns = attended(now, self.stride, self.pattern, self.summary, h.device)
            for block, stored in zip(self.blocks, cache["keys and values"], strict=True):
                h = block(h, stored, now, columns)
        return self.head(h)
