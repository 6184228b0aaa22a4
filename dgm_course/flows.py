"""Flows: a base distribution and an invertible transform; and the named models built from them."""

import math

import torch
from torch import nn

from dgm_course.distributions import StandardLogistic, StandardNormal
from dgm_course.nn import MLP, MaskedMLP, ResidualConvNet
from dgm_course.transforms import (
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Compose,
    Continuous,
    ContractiveMLP,
    Coupling,
    Inverse,
    InvertibleConv1x1,
    MaskedCoupling,
    MultiScale,
    Permute,
    Planar,
    PositiveNetwork,
    Radial,
    RationalQuadratic,
    Rescale,
    Residual,
    Sigmoidal,
    Squeeze,
    SumOfSquares,
    Sylvester,
    VectorField,
    checkerboard_mask,
)


class Flow(nn.Module):
    """Density by change of variables: log p(x) = log p(z) + log|det dz/dx| with z = transform(x).

    Args:
        base: distribution of z, e.g. `StandardNormal((2,))`.
        transform: a `Transform` from data to latent.
    """

    def __init__(self, base, transform):
        super().__init__()
        self.base, self.transform = base, transform

    def log_prob(self, x, context=None):
        """Log-density in nats, `(batch, ...)` to `(batch,)`: exact, unless a layer was told to estimate its log-det.

        (`Residual` and `Continuous` can; their `log_det` and `trace` say what comes back.)

        Raises:
            ValueError: wrong shape, or NaN or infinite entries in x.
            TypeError: x is not a floating-point tensor.
        """
        if isinstance(x, torch.Tensor) and not bool(torch.isfinite(x).all()):
            raise ValueError(f"x has {int((~torch.isfinite(x)).sum())} entries that are NaN or infinite")
        z, log_det = self.transform(x, context)
        return self.base.log_prob(z) + log_det

    def loss(self, x, context=None):
        """Mean negative log-likelihood in nats, a scalar."""
        if len(x) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        return -self.log_prob(x, context).mean()

    @torch.no_grad()
    def sample(self, n, context=None, generator=None, temperature=1.0):
        """Draws `(n, ...)` samples: z from the base, times `temperature`, then x = transform.inverse(z)."""
        return self.transform.inverse(self.base.sample(n, generator, temperature), context)[0]


def nice(dim, layers=6, hidden=(256, 256), context_dim=0, scale=None):
    """NICE: additive coupling on even and odd entries in turn, one diagonal rescaling, logistic base.

    Args:
        dim: entries of x.
        layers: coupling layers; from four dimensions up, three let every entry depend on every other.
        hidden: widths of each coupling network.
        context_dim: entries of `context`; 0 for none.
        scale: starting values `(dim,)` of the rescaling, best one over the standard deviation of each entry; else ones.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh, Krueger, Bengio, 2015.
    """
    parity = Permute.parity(dim)
    rescale = Rescale(dim, None if scale is None else scale[parity.order])
    couplings = _couplings(dim, layers, Additive(), hidden, context_dim)
    return Flow(StandardLogistic((dim,)), Compose(parity, *couplings, rescale))


def realnvp(dim, layers=5, hidden=(32, 32), context_dim=0, bound=3.0):
    """RealNVP for vectors: affine coupling on the two halves in turn, Gaussian base.

    Args:
        dim: entries of x.
        layers: coupling layers.
        hidden: widths of each coupling network.
        context_dim: entries of `context`; 0 for none.
        bound: soft limit of the log-scale in each layer.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017.
    """
    return Flow(StandardNormal((dim,)), Compose(*_couplings(dim, layers, Affine(bound), hidden, context_dim)))


def _couplings(dim, layers, law, hidden, context_dim):
    for i in range(layers):
        sizes = [dim - dim // 2, dim // 2]
        kept, moved = reversed(sizes) if i % 2 else sizes
        yield Coupling(dim, MLP(kept, law.n_params * moved, hidden, context_dim), law, swap=bool(i % 2))


def _autoregressive(dim, layers, make_law, hidden, context_dim):
    """Autoregressive layers whose orders run forwards and backwards in turn."""
    for i in range(layers):
        law, order = make_law(), range(dim) if i % 2 == 0 else range(dim - 1, -1, -1)
        yield Autoregressive(MaskedMLP(dim, law.n_params, hidden, context_dim, order), law)


def maf(dim, layers=5, hidden=(64, 64), context_dim=0, bound=3.0):
    """Masked autoregressive flow: Gaussian autoregressive layers (MADE inside), density in one pass each.

    Args:
        dim: entries of x.
        layers: autoregressive layers; their orders alternate.
        hidden: widths of each MADE.
        context_dim: entries of `context`; 0 for none.
        bound: soft limit of the log-scale in each layer.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou, Murray, 2017.
    """
    layers = _autoregressive(dim, layers, lambda: Affine(bound), hidden, context_dim)
    return Flow(StandardNormal((dim,)), Compose(*layers))


def iaf(dim, layers=5, hidden=(64, 64), context_dim=0, bound=3.0):
    """Inverse autoregressive flow: `maf` turned round, so that samples (and their densities) take one pass each.

    Arguments as in `maf`; the density of a given x costs `dim` steps for each layer.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016.
    """
    layers = _autoregressive(dim, layers, lambda: Affine(bound), hidden, context_dim)
    return Flow(StandardNormal((dim,)), Compose(*(Inverse(layer) for layer in layers)))


def spline(dim, layers=5, hidden=(64, 64), context_dim=0, kind="coupling", bins=8, bound=5.0, law=RationalQuadratic):
    """Neural spline flow.

    Args:
        dim, layers, hidden, context_dim: as in `maf` and `realnvp`.
        kind: "coupling" (one pass both ways) or "autoregressive" (more expressive, samples entry by entry).
        bins: bins of each spline.
        bound: splines act inside (-bound, bound); bring the data there, e.g. with `Standardize`.
        law: `RationalQuadratic` or `Cubic`.

    References:
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019.
        Cubic-Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019.
    """
    if kind == "coupling":
        transforms = _couplings(dim, layers, law(bins, bound), hidden, context_dim)
    elif kind == "autoregressive":
        transforms = _autoregressive(dim, layers, lambda: law(bins, bound), hidden, context_dim)
    else:
        raise ValueError(f'kind must be "coupling" or "autoregressive", got {kind!r}')
    return Flow(StandardNormal((dim,)), Compose(*transforms))


def naf(dim, layers=3, hidden=(64, 64), context_dim=0, units=8):
    """Neural autoregressive flow with `units` sigmoids for each entry and layer; see `Sigmoidal`."""
    layers = _autoregressive(dim, layers, lambda: Sigmoidal(units), hidden, context_dim)
    return Flow(StandardNormal((dim,)), Compose(*layers))


def sos(dim, layers=3, hidden=(64, 64), context_dim=0, polynomials=3, degree=4):
    """Sum-of-squares polynomial flow; see `SumOfSquares`."""
    layers = _autoregressive(dim, layers, lambda: SumOfSquares(polynomials, degree), hidden, context_dim)
    return Flow(StandardNormal((dim,)), Compose(*layers))


def umnn(dim, layers=3, hidden=(64, 64), context_dim=0, signal=8, nodes=24):
    """Unconstrained monotonic neural networks; see `PositiveNetwork`."""
    layers = _autoregressive(dim, layers, lambda: PositiveNetwork(signal, nodes=nodes), hidden, context_dim)
    return Flow(StandardNormal((dim,)), Compose(*layers))


def realnvp_image(shape, levels=2, hidden=32, blocks=2, context_dim=0, bound=1.0):
    """RealNVP for images: checkerboard couplings, squeeze, channel couplings, half of the channels leave; and again.

    Each level has three checkerboard and three channel couplings, the last one four checkerboard couplings. x is
    `(batch, c, h, w)` on the real line: put a `Logit` in front for pixels in [0, 1].

    Args:
        shape: shape `(c, h, w)`; height and width must be divisible by `2 ** (levels - 1)`.
        levels: number of scales.
        hidden, blocks: channels and residual blocks of each coupling network.
        context_dim: entries of `context`; 0 for none.
        bound: soft limit of the log-scale in each layer; with many layers, wider ones cost precision of the inverse.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, sections 3.4 to 3.6. Batch
        normalization is left out.
    """
    c, h, w = shape
    if h % 2 ** (levels - 1) or w % 2 ** (levels - 1):
        raise ValueError(f"height and width must be divisible by {2 ** (levels - 1)} for {levels} levels, got {(h, w)}")

    def net(c_in, c_out):
        return ResidualConvNet(c_in, c_out, hidden, blocks, context_dim)

    def checkerboards(n):
        return [MaskedCoupling(checkerboard_mask(h, w, swap=i % 2 == 1), net(c, 2 * c), bound) for i in range(n)]

    stages = []
    for _ in range(levels - 1):
        board = checkerboards(3)
        c, h, w = 4 * c, h // 2, w // 2
        channel = [Coupling(c, net(c // 2, c), Affine(bound), swap=i % 2 == 1) for i in range(3)]
        stages.append(Compose(*board, Squeeze(), *channel))
        c = c // 2
    stages.append(Compose(*checkerboards(4)))
    return Flow(StandardNormal((math.prod(shape),)), MultiScale(shape, stages, context_dim))


def glow(shape, levels=2, steps=4, hidden=64, affine=True, lu=True, blocks=1, context_dim=0, bound=1.0):
    """Glow: squeeze, then `steps` times actnorm, invertible 1x1 convolution and coupling; half leaves; and again.

    Send one batch forward in training mode first (`loss` does): actnorm starts from it. x is on the real line, as in
    `realnvp_image`.

    Args:
        shape: shape `(c, h, w)`; height and width must be divisible by `2 ** levels`.
        levels, steps: number of scales (L) and of steps in each (K).
        hidden, blocks: channels and residual blocks of each coupling network.
        affine: affine coupling; if False additive.
        lu: W of the 1x1 convolutions in its LU form.
        context_dim: entries of `context`; 0 for none.
        bound: soft limit of the log-scale of each affine coupling.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, figure 2 and table 1. The
        coupling networks are residual ones, and the split-off latents have a standard normal prior.
    """
    c, h, w = shape
    if h % 2**levels or w % 2**levels:
        raise ValueError(f"height and width must be divisible by {2**levels} for {levels} levels, got {(h, w)}")
    law, stages = Affine(bound) if affine else Additive(), []
    for _ in range(levels):
        c, stage = 4 * c, [Squeeze()]
        for _ in range(steps):
            net = ResidualConvNet(c // 2, law.n_params * (c // 2), hidden, blocks, context_dim)
            stage += [ActNorm(c), InvertibleConv1x1(c, lu), Coupling(c, net, law)]
        stages.append(Compose(*stage))
        c = c // 2
    return Flow(StandardNormal((math.prod(shape),)), MultiScale(shape, stages, context_dim))


def planar(dim, layers=16, context_dim=0):
    """Planar flow. Its fast side is sampling (`transform.inverse`): made for posteriors and reverse KL.

    Args:
        dim: entries of x.
        layers: number of planar layers.
        context_dim: entries of `context`, which shifts the parameters of each example; 0 for none.

    References:
        Variational inference with normalizing flows, Rezende, Mohamed, 2015, equation 10.
    """
    return Flow(StandardNormal((dim,)), Compose(*[Planar(dim, context_dim) for _ in range(layers)]))


def radial(dim, layers=16, context_dim=0):
    """Radial flow, arguments as in `planar`; both sides are in closed form.

    References:
        Variational inference with normalizing flows, Rezende, Mohamed, 2015, equation 14.
    """
    return Flow(StandardNormal((dim,)), Compose(*[Radial(dim, context_dim) for _ in range(layers)]))


def sylvester(dim, layers=4, rank=None, kind="orthogonal", reflections=4, context_dim=0):
    """Sylvester flow, other arguments as in `planar`; its fast side is sampling.

    Args:
        rank: hidden units of each layer, at most dim (the default).
        kind: `orthogonal`, `householder` or `triangular`.
        reflections: Householder reflections in each layer.

    References:
        Sylvester normalizing flows for variational inference, van den Berg et al., 2018, section 3.
    """
    rank = dim if rank is None else rank
    made = [Sylvester(dim, rank, kind, reflections, i % 2 == 1, context_dim) for i in range(layers)]
    return Flow(StandardNormal((dim,)), Compose(*made))


def residual(dim, blocks=8, hidden=(64, 64), coeff=0.97, context_dim=0, log_det="exact", terms=10, generator=None):
    """Residual flow on vectors: contractive residual blocks, log_prob exact or estimated as `log_det` says.

    Args:
        dim: entries of x.
        blocks: number of residual blocks.
        hidden: widths of each block's network.
        coeff: bound on the singular values of each weight, below 1.
        context_dim: entries of `context`; 0 for none.
        log_det, terms, generator: as in `Residual`.

    References:
        Residual flows for invertible generative modeling, Chen et al., 2019.
    """
    nets = [ContractiveMLP(dim, hidden, coeff, context_dim) for _ in range(blocks)]
    return Flow(StandardNormal((dim,)), Compose(*[Residual(net, log_det, terms, generator=generator) for net in nets]))


def ffjord(dim, hidden=(64, 64), context_dim=0, activation=nn.Tanh, **solver):
    """FFJORD, a continuous normalizing flow on vectors, with one vector field.

    Args:
        dim: entries of x.
        hidden: widths of the vector field's network.
        context_dim: entries of `context`; 0 for none.
        activation: class of its nonlinearity, a smooth one.
        solver: `trace`, `solver`, `steps`, `atol`, `rtol`, `adjoint`, `generator` of `Continuous`.

    References:
        FFJORD: Free-form continuous dynamics for scalable reversible generative models, Grathwohl et al., 2019.
    """
    field = VectorField(dim, hidden, context_dim, activation)
    return Flow(StandardNormal((dim,)), Continuous(field, **solver))


def reverse_kl(flow, log_density, n, context=None, generator=None):
    """Monte Carlo estimate of KL(flow || target) in nats, up to the target's log-normalizer; a scalar to minimize.

    x = transform.inverse(z), so that flows whose analytic side is `inverse` train fast, and no data are needed.

    Args:
        log_density: log-density of the target, `(n, ...)` to `(n,)`; need not be normalized.
        n: samples.

    References:
        Variational inference with normalizing flows, Rezende, Mohamed, 2015, equation 15.
    """
    z = flow.base.sample(n, generator)
    x, log_det = flow.transform.inverse(z, context)
    return (flow.base.log_prob(z) - log_det - log_density(x)).mean()
