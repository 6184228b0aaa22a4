"""Residual flow and continuous flow on the 64-D digits: a training step against normflows and zuko.

Residual flow: 8 blocks with networks of two hidden layers of 128, coefficient 0.9, Russian roulette after two sure
terms with stop probability 1/2, one probe. The numbers of terms are random, so a step's time is too.

Continuous flow: the same vector field (two hidden layers of 128, random weights), Hutchinson's trace, dopri5 at equal
tolerances (atol 1e-6, rtol 1e-5); ours by backpropagation and by the adjoint, zuko by its checkpointed adjoint.
"""

import copy

import normflows
import torch
import zuko

from benchmarks.coupling import BATCH, batches, training_step
from benchmarks.timing import interleaved, report
from dgm_course.distributions import StandardNormal
from dgm_course.flows import Flow, ffjord, residual
from dgm_course.transforms import Continuous

BLOCKS, HIDDEN, COEFF, TERMS = 8, (128, 128), 0.9, 2


def residual_flows(dim):
    """name -> (model, loss of a batch)."""
    ours = residual(dim, BLOCKS, HIDDEN, COEFF, log_det="roulette", terms=TERMS)
    steps = []
    for _ in range(BLOCKS):
        net = normflows.nets.LipschitzMLP([dim, *HIDDEN, dim], lipschitz_const=COEFF, max_lipschitz_iter=5)
        steps.append(normflows.flows.Residual(net, n_exact_terms=TERMS, reduce_memory=True))
    peer = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dim, trainable=False), steps)
    return {"ours": (ours, ours.loss), "normflows": (peer, peer.forward_kld)}


def continuous_flows(dim, spread):
    """name -> (model, loss of a batch); `spread` is the standard deviation of the field's output weights, times 10."""
    direct = ffjord(dim, HIDDEN, trace="hutchinson", atol=1e-6, rtol=1e-5)
    field = direct.transform.field
    torch.nn.init.normal_(field.net.layers[-1].weight, std=spread / 10)
    base = StandardNormal((dim,))
    adjoint = Flow(base, Continuous(copy.deepcopy(field), "hutchinson", atol=1e-6, rtol=1e-5, adjoint=True))
    other = copy.deepcopy(field)
    peer = zuko.transforms.FreeFormJacobianTransform(other, phi=other.parameters(), atol=1e-6, rtol=1e-5, exact=False)

    def peer_loss(x):
        z, log_det = peer.call_and_ladj(x)
        return -(base.log_prob(z) + log_det).mean()

    return {"ours": (direct, direct.loss), "adjoint": (adjoint, adjoint.loss), "zuko": (other, peer_loss)}


def main(rounds):
    x = batches()["8x8 digits, 64-D"]
    tables = {}
    torch.manual_seed(0)
    for title, rivals in {
        f"Residual flow, {BLOCKS} blocks": residual_flows(x.shape[1]),
        "Continuous flow, as at the start of training": continuous_flows(x.shape[1], 0.0),
        "Continuous flow, a steeper field": continuous_flows(x.shape[1], 3.0),
    }.items():
        steps = {name: training_step(model, loss, x) for name, (model, loss) in rivals.items()}
        tables[f"{title}, 8x8 digits, 64-D: training step, batch {BATCH}"] = interleaved(steps, rounds)
    report("residual_continuous", tables, ("normflows", "zuko", "torchdiffeq"))
