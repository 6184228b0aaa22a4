"""Continuous normalizing flow: x moves along dx/dt = f(t, x) from data at t = 0 to latent at t = 1.

The log-det of the map is the integral of the divergence, d log|det| / dt = tr(df/dx) (instantaneous change of
variables): any network may be f, without constraint. `inverse` integrates from 1 back to 0.

References:
    Neural ordinary differential equations, Chen et al., 2018, theorem 1 and appendix B (the adjoint).
    FFJORD: Free-form continuous dynamics for scalable reversible generative models, Grathwohl et al., 2019, equations
    4 to 8.
"""

import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from dgm_course.nn import MLP, check_context
from dgm_course.transforms.base import Transform, dense_jacobian, expect, random_signs, sum_event, tracked

FIXED, ADAPTIVE = ("euler", "midpoint", "rk4"), ("bosh3", "dopri5", "dopri8")


class VectorField(nn.Module):
    """f(t, x, context) as a fully connected network of x, t and the context; starts at zero, the flow as identity.

    Args:
        dim: entries of x.
        hidden: widths of the hidden layers.
        context_dim: entries of `context`; 0 for none.
        activation: class of the nonlinearity; smooth ones (`nn.Tanh`, `nn.Softplus`) let the solver take large steps.
    """

    def __init__(self, dim, hidden=(64, 64), context_dim=0, activation=nn.Tanh):
        super().__init__()
        self.shape, self.context_dim = (dim,), context_dim
        self.net = MLP(dim, dim, hidden, context_dim + 1, activation)

    def forward(self, t, x, context=None):
        t = t.expand(len(x), 1)
        return self.net(x, t if context is None else torch.cat([t, context], dim=1))


class Continuous(Transform):
    """Flow of the differential equation dx/dt = f(t, x, context) over t in [0, 1].

    All that it returns is exact up to the solver's error. With trace `hutchinson` the log-det (so `log_prob` too) is
    an unbiased estimate: tr(df/dx) becomes v^T (df/dx) v, the random signs v drawn anew for each example and call, and
    kept for the whole solve. With an adaptive solver an example's result depends on its batch, within the tolerances.

    Args:
        field: module `f(t, x, context)` with attributes `shape` (of one x) and `context_dim`, e.g. `VectorField(dim)`.
        trace: `exact` (dim backward passes in each evaluation) or `hutchinson` (one).
        solver: of torchdiffeq, fixed-step (`euler`, `midpoint`, `rk4`) or adaptive (`bosh3`, `dopri5`, `dopri8`).
        steps: number of steps of a fixed-step solver.
        atol, rtol: absolute and relative tolerance of an adaptive one; not below what the dtype resolves.
        adjoint: gradient from the adjoint equation (memory does not grow with the steps, gradient has the solver's
            error) instead of backpropagation through the solver.
        generator: source of the random signs.
    """

    def __init__(
        self,
        field,
        trace="exact",
        solver="dopri5",
        steps=20,
        atol=1e-5,
        rtol=1e-5,
        adjoint=False,
        generator=None,
    ):
        super().__init__()
        if trace not in ("exact", "hutchinson"):
            raise ValueError(f"trace must be exact or hutchinson, got {trace!r}")
        if solver not in FIXED + ADAPTIVE:
            raise ValueError(f"solver must be one of {', '.join(FIXED + ADAPTIVE)}, got {solver!r}")
        if steps < 1 or atol <= 0 or rtol <= 0:
            raise ValueError(f"steps, atol and rtol must be positive, got {steps}, {atol} and {rtol}")
        self.field, self.trace, self.solver, self.steps = field, trace, solver, steps
        self.atol, self.rtol, self.adjoint, self.generator = atol, rtol, adjoint, generator

    def forward(self, x, context=None):
        expect(x, self.field.shape)
        return self.integrate(x, context, 0.0, 1.0)

    def inverse(self, z, context=None):
        expect(z, self.field.shape, "z")
        return self.integrate(z, context, 1.0, 0.0)

    def integrate(self, x, context, start, end, signs=None):
        """State at time `end` of the path that is at x at time `start`, and the log-det of that map `(batch,)`.

        Args:
            signs: of Hutchinson's estimator, in x's shape; drawn if not given.

        Raises:
            ValueError: the solver gave up (x or parameters not finite, or the field too steep for the tolerances).
        """
        check_context(context, self.field.context_dim, len(x))
        if len(x) == 0:
            return x, x.new_zeros(0)
        if self.trace == "hutchinson" and signs is None:
            signs = random_signs(x, self.generator)

        def slopes(t, state):
            with tracked(state[0]) as (x, keep):
                y = self.field(t, x, context)
                if self.trace == "exact":
                    trace = dense_jacobian(y, x, keep).diagonal(dim1=1, dim2=2).sum(1)
                else:
                    trace = sum_event(torch.autograd.grad(y, x, signs, create_graph=keep)[0] * signs)
            return (y, trace) if keep else (y.detach(), trace.detach())

        floor = 10 * torch.finfo(x.dtype).eps
        times = torch.tensor([start, end]).to(x)
        options = {"rtol": max(self.rtol, floor), "atol": max(self.atol, floor), "method": self.solver}
        # An adaptive solver has to step onto the end, or it interpolates there with less accuracy.
        options["options"] = {"step_size": 1 / self.steps} if self.solver in FIXED else {"step_t": times[1:]}
        solve = odeint
        if self.adjoint:
            solve = odeint_adjoint
            if self.solver in ADAPTIVE:
                options["adjoint_options"] = {"step_t": times[:1]}
            options["adjoint_params"] = [*self.field.parameters(), *([] if context is None else [context])]
        try:
            x, log_det = solve(slopes, (x, x.new_zeros(len(x))), times, **options)
        except AssertionError as error:
            raise ValueError(f"solver {self.solver} gave up: {error}") from error
        return x[-1], log_det[-1]
