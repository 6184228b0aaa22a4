"""RealNVP: a training step and sampling, against zuko, nflows, normflows and the floor.

All have 8 affine coupling layers with networks of two hidden layers of 128 (the same number of parameters), batch 512,
Adam. The floor is the same networks' matrix products and activations (forward, and backward to weights and inputs,
as in a flow) and the Adam step alone.
"""

import normflows
import torch
import zuko
from nflows.distributions import StandardNormal
from nflows.flows import Flow as NFlow
from nflows.nn.nets import MLP as NMLP
from nflows.transforms import AffineCouplingTransform, CompositeTransform
from torch import nn

from benchmarks.timing import interleaved, report
from dgm_course import data
from dgm_course.flows import realnvp

LAYERS, HIDDEN, BATCH = 8, (128, 128), 512


class Floor(nn.Module):
    """The coupling networks alone; each is fed the same half of x, in one direction or the other."""

    def __init__(self, dim):
        super().__init__()
        half, (a, b) = dim // 2, HIDDEN
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(half, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, dim))
            for _ in range(LAYERS)
        )
        self.half = half

    def loss(self, x):
        half = x[:, : self.half].clone().requires_grad_()
        return sum(net(half).sum() for net in self.nets)

    def sample(self, n):
        half = torch.randn(n, self.half)
        return [net(half) for net in self.nets]


def contenders(dim):
    """name -> (model, loss of a batch, function that samples n points), all with the same networks."""
    masks = [(torch.arange(dim) % 2 == i % 2).int() for i in range(LAYERS)]
    floor = Floor(dim)
    ours = realnvp(dim, layers=LAYERS, hidden=HIDDEN)
    by_zuko = zuko.flows.RealNVP(dim, transforms=LAYERS, hidden_features=HIDDEN)
    couplings = [AffineCouplingTransform(mask, nflows_network) for mask in masks]
    by_nflows = NFlow(CompositeTransform(couplings), StandardNormal([dim]))
    steps = []
    for _ in range(LAYERS):
        net = normflows.nets.MLP([dim // 2, *HIDDEN, dim], init_zeros=True)
        steps += [normflows.flows.AffineCouplingBlock(net), normflows.flows.Permute(dim, mode="swap")]
    by_normflows = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dim, trainable=False), steps)
    return {
        "floor": (floor, floor.loss, floor.sample),
        "ours": (ours, ours.loss, ours.sample),
        "zuko": (by_zuko, lambda x: -by_zuko().log_prob(x).mean(), lambda n: by_zuko().sample((n,))),
        "nflows": (by_nflows, lambda x: -by_nflows.log_prob(x).mean(), by_nflows.sample),
        "normflows": (by_normflows, by_normflows.forward_kld, by_normflows.sample),
    }


class NMLPWithContext(NMLP):
    """nflows calls coupling networks with a context, which its own MLP does not take."""

    def forward(self, inputs, context=None):
        return super().forward(inputs)


def nflows_network(n_in, n_out):
    return NMLPWithContext([n_in], [n_out], HIDDEN)


def training_step(model, loss, x):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def batches():
    """The two data sets: a toy in the plane, and the 8x8 digits, dequantized and standardized."""
    generator = torch.Generator().manual_seed(0)
    digits = data.load("digits8", "train")[:BATCH].flatten(1).float()
    digits = digits + torch.rand(digits.shape, generator=generator)
    return {"moons, 2-D": data.toy("moons", BATCH), "8x8 digits, 64-D": (digits - 8.5) / 5}


def main(rounds):
    tables = {}
    for title, x in batches().items():
        torch.manual_seed(0)
        rivals = contenders(x.shape[1])
        steps = {name: training_step(model, loss, x) for name, (model, loss, _) in rivals.items()}
        trained = interleaved(steps, rounds)
        with torch.no_grad():
            sampled = interleaved({name: lambda s=sample: s(BATCH) for name, (*_, sample) in rivals.items()}, rounds)
        for name, (model, *_) in rivals.items():
            trained[name]["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        tables[f"RealNVP, {title}: training step, batch {BATCH}"] = trained
        tables[f"RealNVP, {title}: {BATCH} samples"] = sampled
    report("coupling", tables, ("zuko", "nflows", "normflows"))
