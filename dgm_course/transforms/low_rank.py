"""Low-rank flows: planar, radial and Sylvester, x = z + (a change of low rank), with a log-det that costs O(dim).

Their analytic side is `inverse` (z to x), as posterior flows and reverse KL need it. `forward` (x to z) is exact too:
a monotone equation per hidden unit, solved inside a bracket (planar, Sylvester), or a quadratic one (radial).

Every layer takes its parameters from one vector. With `context_dim`, a linear hyper-network of the context is added to
it, so that each example has its own flow (amortized, as in a VAE, where the context comes from the encoder).

References:
    Variational inference with normalizing flows, Rezende, Mohamed, 2015, equations 10 to 14 and appendix A.
    Sylvester normalizing flows for variational inference, van den Berg et al., 2018, equations 7 to 16.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.transforms.base import Transform, check_context, expect
from dgm_course.transforms.monotone import solve_monotone

MARGIN = 1e-3  # distance that every constraint keeps from the singular case, where softplus and tanh would round to it


class LowRank(Transform):
    """What the three share: parameters of given sizes from one vector and, where there is one, the context."""

    def __init__(self, dim, sizes, context_dim=0):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim, self.sizes, self.context_dim = dim, sizes, context_dim
        self.raw = nn.Parameter(0.1 * torch.randn(sum(sizes)))
        self.hyper = nn.Linear(context_dim, sum(sizes), bias=False) if context_dim else None

    def params(self, x, context, name="x"):
        """Parameters, each `(batch or 1, size)`, after a check of x and the context."""
        expect(x, (self.dim,), name)
        check_context(context, self.context_dim, len(x))
        raw = self.raw[None] if context is None else self.raw + self.hyper(context)
        return raw.split(self.sizes, dim=1)


def above(a, low):
    """Smooth map of the real line to values above `low` (negative) that keeps 0 at 0; linear for large a."""
    return low + F.softplus(a + math.log(math.expm1(-low)))


def solve(slope, y, b):
    """Solves a + slope * tanh(a + b) = y for a, elementwise; slope > -1 makes the left side increase. No gradients.

    Raises:
        RuntimeError: as `solve_monotone` does, e.g. because inputs or parameters were not finite.
    """
    slope, y, b = torch.broadcast_tensors(slope, y, b)

    def curve(a):
        h = torch.tanh(a + b)
        return a + slope * h, torch.log1p(slope * (1 - h * h))

    return solve_monotone(curve, y, y - slope.abs(), y + slope.abs())


class Planar(LowRank):
    """Planar flow. `inverse`: x = z + u tanh(w.z + b), log|det dx/dz| = log(1 + u.w tanh'(w.z + b)).

    u is bent so that u.w > -1, which keeps the map invertible. `forward` solves for w.z.

    Args:
        dim: entries of the vector.
        context_dim: entries of `context`, which then shifts the parameters of each example; 0 for none.
    """

    def __init__(self, dim, context_dim=0):
        super().__init__(dim, [dim, dim, 1], context_dim)

    def constrained(self, x, context, name="x"):
        """u, w, b, and the product u.w above -1."""
        u, w, b = self.params(x, context, name)
        dot, square = (u * w).sum(1, keepdim=True), (w * w).sum(1, keepdim=True)
        slope = above(dot, MARGIN - 1)  # above(0) = 0: the correction stays bounded where w vanishes
        u = u + (slope - dot) * w / square.clamp(min=torch.finfo(x.dtype).tiny)
        return u, w, b, slope

    def forward(self, x, context=None):
        u, w, b, slope = self.constrained(x, context)
        y = (x * w).sum(1, keepdim=True)
        a = solve(slope, y, b)
        h = torch.tanh(a + b)
        a = a - (a + slope * h - y) / (1 + slope * (1 - h * h)).detach()  # a Newton step carries the gradient
        h = torch.tanh(a + b)
        return x - u * h, -torch.log1p(slope * (1 - h * h)).squeeze(1)

    def inverse(self, z, context=None):
        u, w, b, slope = self.constrained(z, context, "z")
        h = torch.tanh((z * w).sum(1, keepdim=True) + b)
        return z + u * h, torch.log1p(slope * (1 - h * h)).squeeze(1)


class Radial(LowRank):
    """Radial flow. `inverse`: x = z + beta (z - c) / (alpha + r) with r = |z - c|; beta > -alpha.

    Both sides are in closed form: |x - c| = r + beta r / (alpha + r) is quadratic in r.

    Args:
        dim: entries of the vector.
        context_dim: as in `Planar`.
    """

    def __init__(self, dim, context_dim=0):
        super().__init__(dim, [dim, 1, 1], context_dim)

    def constrained(self, x, context, name="x"):
        """Centre c, alpha > 0 and beta > -alpha."""
        c, alpha, beta = self.params(x, context, name)
        alpha = MARGIN + F.softplus(alpha)
        return c, alpha, F.softplus(beta) - (1 - MARGIN) * alpha

    def log_det(self, r, alpha, beta):
        across, along = beta / (alpha + r), beta * alpha / (alpha + r) ** 2
        return ((self.dim - 1) * torch.log1p(across) + torch.log1p(along)).squeeze(1)

    def forward(self, x, context=None):
        c, alpha, beta = self.constrained(x, context)
        length = torch.linalg.vector_norm(x - c, dim=1, keepdim=True)
        p = alpha + beta - length
        root = torch.sqrt(p * p + 4 * alpha * length)
        # The same root twice: no difference of nearly equal numbers. The clamps keep the unused one's gradient finite.
        r = torch.where(p > 0, 2 * alpha * length / (p + root).clamp(min=MARGIN**2), (root - p) / 2)
        return c + (x - c) / (1 + beta / (alpha + r)), -self.log_det(r, alpha, beta)

    def inverse(self, z, context=None):
        c, alpha, beta = self.constrained(z, context, "z")
        r = torch.linalg.vector_norm(z - c, dim=1, keepdim=True)
        return z + beta / (alpha + r) * (z - c), self.log_det(r, alpha, beta)


class Sylvester(LowRank):
    """Sylvester flow. `inverse`: x = z + Q R tanh(S Q^T z + b), Q with orthonormal columns, R, S upper triangular.

    By Sylvester's identity det dx/dz = det(I + diag(tanh') S R), a product over the diagonal. The products S_ii R_ii
    lie above -1. `forward` solves the same triangular system from its last row to its first, one equation each.

    Args:
        dim: entries of the vector.
        rank: columns of Q (hidden units); at most dim, and dim for `triangular`.
        kind: how Q is made: `orthogonal` (QR decomposition of a free matrix), `householder` (product of reflections),
            `triangular` (Q is fixed: the identity, or the reversal if `flip`).
        reflections: number of Householder reflections.
        flip: see `triangular`; layers take turns.
        context_dim: as in `Planar`.
    """

    def __init__(self, dim, rank, kind="orthogonal", reflections=4, flip=False, context_dim=0):
        columns = {"orthogonal": rank, "householder": reflections, "triangular": 0}
        if kind not in columns:
            raise ValueError(f"kind must be one of {', '.join(columns)}, got {kind!r}")
        if not 1 <= rank <= dim or (kind == "triangular" and rank != dim):
            raise ValueError(f"rank must lie in 1 ... {dim}, and be {dim} for kind triangular, got {rank} for {kind}")
        super().__init__(dim, [dim * columns[kind], rank * rank, rank * rank, rank], context_dim)
        self.rank, self.kind, self.flip = rank, kind, flip
        with torch.no_grad():  # free matrices of Q far from rank loss
            self.raw[: self.sizes[0]].mul_(10)

    def constrained(self, x, context, name="x"):
        """Q `(batch or 1, dim, rank)`, R and S `(batch or 1, rank, rank)`, b `(batch or 1, rank)`."""
        q, r, s, b = self.params(x, context, name)
        r, s = (self.triangle(m.unflatten(1, (self.rank, self.rank))) for m in (r, s))
        return self.basis(q), r, s, b

    def triangle(self, m):
        """Upper triangular, the diagonal squashed into (-1, 1), so that a product of two lies above -1."""
        diagonal = (1 - MARGIN) * torch.tanh(m.diagonal(dim1=1, dim2=2))
        return m.triu(1) + torch.diag_embed(diagonal)

    def basis(self, q):
        eye = torch.eye(self.dim, dtype=q.dtype, device=q.device)[None]
        if self.kind == "triangular":
            return eye.flip(2) if self.flip else eye
        q = q.unflatten(1, (self.dim, -1))
        if self.kind == "orthogonal":
            return torch.linalg.qr(q)[0]
        basis = eye[:, :, : self.rank]
        for v in F.normalize(q, dim=1).split(1, dim=2):
            basis = basis - 2 * v @ (v.mT @ basis)
        return basis

    def forward(self, x, context=None):
        q, r, s, b = self.constrained(x, context)
        y, product = times(s @ q.mT, x), s @ r
        slope, h = product.diagonal(dim1=1, dim2=2), torch.zeros_like(y)
        a = torch.zeros_like(y)
        with torch.no_grad():
            for i in reversed(range(self.rank)):
                a[:, i] = solve(slope[:, i], y[:, i] - (product[:, i] * h).sum(1), b[:, i])
                h[:, i] = torch.tanh(a[:, i] + b[:, i])
        jacobian = torch.eye(self.rank, dtype=x.dtype, device=x.device) + product * (1 - h * h)[:, None]
        residual = a + times(product, torch.tanh(a + b)) - y
        a = a - torch.linalg.solve_triangular(jacobian.detach(), residual[..., None], upper=True)[..., 0]
        h = torch.tanh(a + b)  # after a Newton step that carries the gradient
        return x - times(q @ r, h), -torch.log1p(slope * (1 - h * h)).sum(1)

    def inverse(self, z, context=None):
        q, r, s, b = self.constrained(z, context, "z")
        h = torch.tanh(times(s @ q.mT, z) + b)
        slope = (s * r).diagonal(dim1=1, dim2=2)
        return z + times(q @ r, h), torch.log1p(slope * (1 - h * h)).sum(1)


def times(matrix, x):
    """Matrix `(batch or 1, n, m)` times each vector of `(batch, m)`."""
    return (matrix @ x[..., None])[..., 0]
