"""Cached sampling of pixel models against the naive way, one pass of the whole network for each entry.

The floor is one pass over all images. Both samplers give the same images. At full size the naive sampler is left out:
it takes as many passes as an image has entries.
"""

import torch

from benchmarks.timing import interleaved, report
from dgm_course.autoregressive.gated_pixel_cnn import GatedPixelCNN
from dgm_course.autoregressive.pixel_cnn import PixelCNN
from dgm_course.autoregressive.pixel_rnn import PixelRNN

SMALL = {
    "PixelCNN": lambda shape: PixelCNN(shape, 2, hidden=32, blocks=5),
    "Gated PixelCNN": lambda shape: GatedPixelCNN(shape, 2, hidden=32, layers=5),
    "PixelRNN, row LSTM": lambda shape: PixelRNN(shape, 2, hidden=32, layers=2, kind="row"),
    "PixelRNN, diagonal BiLSTM": lambda shape: PixelRNN(shape, 2, hidden=32, layers=2, kind="diagonal"),
}


def compare(model, n, rounds, naive=True):
    """Times of one pass, cached and naive sampling of n images; how many times faster cached sampling is."""
    x = torch.zeros(n, *model.shape, dtype=torch.long)

    def floor():
        with torch.no_grad():
            model.logits(x)

    contenders = {"floor": floor, "cached": lambda: model.sample(n)}
    if naive:
        contenders["naive"] = lambda: model.sample(n, cached=False)
        same = [model.sample(n, generator=torch.Generator().manual_seed(0), cached=fast) for fast in (True, False)]
        if not torch.equal(*same):
            raise RuntimeError("cached and naive sampling give different images")
    rows = interleaved(contenders, rounds, warmup=0 if naive else 1)
    if naive:
        rows["cached"]["times faster than naive"] = round(rows["naive"]["ms"] / rows["cached"]["ms"], 1)
    return rows


def main(rounds):
    rounds = max(3, min(rounds, 5))
    shape, tables = (1, 8, 8), {}
    for name, make in SMALL.items():
        torch.manual_seed(0)
        tables[f"{name}, 4 images of 8x8, 32 channels"] = compare(make(shape), 4, rounds)
    torch.manual_seed(0)
    model = GatedPixelCNN((1, 28, 28), 2, hidden=64, layers=7)
    tables["Gated PixelCNN, 16 images of 28x28, 7 layers, 64 channels"] = compare(model, 16, rounds, naive=False)
    report("sampling", tables, ())
