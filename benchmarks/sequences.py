"""Models of sequences: what caches save in sampling, and what sparse attention saves in training.

The receptive field of WaveNet grows with dilations at the same number of layers, so that the step of a cached sampler
should not. Attention is forward and backward, without the network round it.
"""

from functools import partial

import torch

from benchmarks.timing import interleaved, report
from dgm_course.autoregressive.bytenet import ByteNet
from dgm_course.autoregressive.sparse_transformer import (
    SparseTransformer,
    attention_mask,
    dense_attention,
    sparse_attention,
)
from dgm_course.autoregressive.video_pixel_network import VideoPixelNetwork
from dgm_course.autoregressive.wavenet import WaveNet

LENGTH, BATCH, LENGTHS = 256, 16, (1024, 4096)


def samplers():
    """title -> (model, length of a sample)."""
    wavenets = [WaveNet(layers=8 // stacks, stacks=stacks) for stacks in (4, 2, 1)]
    byte_net = ByteNet(96)
    return {
        **{f"WaveNet of 8 layers, receptive field {m.reach}, {LENGTH} entries": (m, LENGTH) for m in wavenets},
        f"ByteNet of 10 blocks, receptive field {byte_net.reach}, {LENGTH} characters": (byte_net, LENGTH),
        f"Sparse Transformer of 4 layers, {LENGTH} entries": (SparseTransformer(96, LENGTH), LENGTH),
        "Video Pixel Network, 2 frames of 16x16": (VideoPixelNetwork((16, 16)), 2),
    }


def attentions(n, heads=4, d=16):
    """name -> function that attends, with gradients, in a sequence of n entries."""
    stride, mask = int(n**0.5), attention_mask(n, int(n**0.5), "strided")
    q, k, v = torch.randn(3, 1, heads, n, d, requires_grad=True)
    ways = {
        "strided": lambda: sparse_attention(q, k, v, stride, "strided"),
        "fixed": lambda: sparse_attention(q, k, v, stride, "fixed"),
        "masked": lambda: dense_attention(q, k, v, mask),
        "dense": lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    return {name: lambda way=way: way().sum().backward() for name, way in ways.items()}


def main(rounds):
    tables, few = {}, max(2, rounds // 30)
    torch.manual_seed(0)
    for title, (model, length) in samplers().items():
        runs = {name: partial(model.sample, BATCH, length, cached=name == "cached") for name in ("cached", "naive")}
        table = interleaved(runs, few, warmup=0)
        table["cached"]["faster than naive:"] = round(table["naive"]["ms"] / table["cached"]["ms"], 1)
        tables[f"{title}, {BATCH} samples at once"] = table
    for n in LENGTHS:
        table = interleaved(attentions(n), max(3, rounds // 6), warmup=1)
        for name in ("strided", "fixed"):
            for slow in ("masked", "dense"):
                table[name][f"faster than {slow}:"] = round(table[slow]["ms"] / table[name]["ms"], 1)
        tables[f"Attention of {n} entries, 4 heads"] = table
    report("sequences", tables, ())
