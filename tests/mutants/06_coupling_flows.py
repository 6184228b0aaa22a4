"""Lecture 06: wrong answers that must lose their cells, unusual right ones that must keep them all."""

from tests.grading.variants import right, wrong

# --------------------------------------------------------------------------------------------------- additive_coupling
wrong("additive_coupling", "sign of the shift", swap=("moved + c(kept)", "moved - c(kept)"))
wrong("additive_coupling", "inverse adds the shift again", swap=("moved - c(kept)", "moved + c(kept)"))
wrong("additive_coupling", "one log-det for the whole batch", swap=("x.new_zeros(len(x))", "x.new_zeros(())"))
wrong("additive_coupling", "forgets the log-det", swap=(", dim=1), x.new_zeros(len(x))", ", dim=1)"))
wrong("additive_coupling", "moves the first part", """
def additive_coupling(x, c, d):
    a, b = x[:, :d], x[:, d:]
    return torch.cat([a + c(b), b], dim=1), x.new_zeros(len(x))

def additive_inverse(z, c, d):
    a, b = z[:, :d], z[:, d:]
    return torch.cat([a - c(b), b], dim=1)
""")  # fmt: skip
wrong("additive_coupling", "halves instead of d", loses="hidden", source="""
def additive_coupling(x, c, d):
    a, b = x.chunk(2, dim=1)
    return torch.cat([a, b + c(a)], dim=1), x.new_zeros(len(x))

def additive_inverse(z, c, d):
    a, b = z.chunk(2, dim=1)
    return torch.cat([a, b - c(a)], dim=1)
""")  # fmt: skip
wrong("additive_coupling", "log-det for a batch of two", swap=("x.new_zeros(len(x))", "x.new_zeros(2)"), loses="hidden")
wrong("additive_coupling", "inverse remembers the last x", loses="hidden", source="""
memory = {}

def additive_coupling(x, c, d):
    z = torch.cat([x[:, :d], x[:, d:] + c(x[:, :d])], dim=1)
    memory["x"] = x
    return z, x.new_zeros(len(x))

def additive_inverse(z, c, d):
    return memory["x"]
""")  # fmt: skip
right("additive_coupling", "in place on a clone, numpy zeros", """
def additive_coupling(x, c, d):
    z = x.clone()
    z[:, d:] += c(z[:, :d])
    return z, np.zeros(x.shape[0])

def additive_inverse(z, c, d):
    z[:, d:] -= c(z[:, :d])
    return z

import numpy as np
""")  # fmt: skip
right("additive_coupling", "a class with one method for both ways", """
class Additive:
    def __init__(self, sign):
        self.sign = sign

    def __call__(self, v, c, d):
        shift = torch.nn.functional.pad(c(v[:, :d]), (d, 0))
        out = v + self.sign * shift
        return (out, 0 * out.sum(1)) if self.sign > 0 else out

additive_coupling, additive_inverse = Additive(1), Additive(-1)
""")  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- influence
wrong("influence", "rows and columns exchanged", swap=("return pattern.bool()", "return pattern.T.bool()"))
wrong("influence", "parts never swap", swap=("first if k % 2 == 0 else ~first", "first"))
wrong("influence", "starts with the second part", swap=("k % 2 == 0", "k % 2 == 1"))
wrong("influence", "one layer too many", swap=("range(layers)", "range(layers + 1)"))
wrong("influence", "moved entries forget themselves",
      swap=("torch.eye(m) + (~kept", "torch.diag(kept.float()) + (~kept"))  # fmt: skip
wrong("influence", "assumes equal halves", swap=("torch.arange(m) < d", "torch.arange(m) < m // 2"), loses="hidden")
wrong("influence", "three layers are always full", loses="hidden", source="""
def influence(m, d, layers):
    if layers >= 3:
        return torch.ones(m, m).bool()
    pattern = torch.eye(m).bool()
    if layers >= 1:
        pattern[d:, :d] = True
    if layers >= 2:
        pattern[:d, :] = True
        pattern[d:, :d] = True
    return pattern ^ (torch.eye(m).bool() & (layers == 0) & (d == 1))
""")  # fmt: skip
right("influence", "sets of indices in a loop", """
def influence(m, d, layers):
    sees = [{i} for i in range(m)]
    for k in range(layers):
        kept = range(d) if k % 2 == 0 else range(d, m)
        union = set().union(*(sees[j] for j in kept))
        sees = [sees[i] if i in kept else sees[i] | union for i in range(m)]
    return torch.tensor([[j in sees[i] for j in range(m)] for i in range(m)])
""")  # fmt: skip
right("influence", "measured with a positive linear network", """
def influence(m, d, layers):
    def net(v):
        for k in range(layers):
            a, b = v[:d], v[d:]
            v = torch.cat([a, b + a.sum()]) if k % 2 == 0 else torch.cat([a + b.sum(), b])
        return v
    return torch.autograd.functional.jacobian(net, torch.ones(m)) > 0
""")  # fmt: skip

# ----------------------------------------------------------------------------------------------------- affine_coupling
wrong("affine_coupling", "sign of the log-det", swap=("+ t], dim=1), s.sum(dim=1)", "+ t], dim=1), -s.sum(dim=1)"))
wrong("affine_coupling", "log-det summed over the batch", swap=("+ t], dim=1), s.sum(dim=1)", "+ t], dim=1), s.sum()"))
wrong("affine_coupling", "mean instead of sum",
      swap=("+ t], dim=1), s.sum(dim=1)", "+ t], dim=1), s.mean(dim=1)"))  # fmt: skip
wrong("affine_coupling", "scale without the exponential", swap=("moved * s.exp()", "moved * s"))
wrong("affine_coupling", "s and t exchanged", swap=("s, t = c(kept)", "t, s = c(kept)"))
wrong("affine_coupling", "inverse forgets the scale", swap=("(moved - t) * torch.exp(-s)", "moved - t"))
wrong("affine_coupling", "inverse scales before it shifts",
      swap=("(moved - t) * torch.exp(-s)", "moved * torch.exp(-s) - t"))  # fmt: skip
wrong("affine_coupling", "inverse returns the log-det of the forward map",
      swap=("torch.exp(-s)], dim=1), -s.sum(dim=1)", "torch.exp(-s)], dim=1), s.sum(dim=1)"))  # fmt: skip
wrong("affine_coupling", "halves instead of d", loses="visible hidden", source="""
def affine_coupling(x, c, d):
    a, b = x.chunk(2, dim=1)
    s, t = c(a).chunk(2, dim=1)
    return torch.cat([a, b * s.exp() + t], dim=1), s.sum(dim=1)

def affine_inverse(z, c, d):
    a, b = z.chunk(2, dim=1)
    s, t = c(a).chunk(2, dim=1)
    return torch.cat([a, (b - t) * (-s).exp()], dim=1), -s.sum(dim=1)
""")  # fmt: skip
wrong("affine_coupling", "log of a rounded determinant", loses="hidden",
      swap=("+ t], dim=1), s.sum(dim=1)", "+ t], dim=1), torch.log(s.exp().prod(dim=1) + 1e-6)"))  # fmt: skip
wrong("affine_coupling", "depends on the batch", swap=("s, t = c(kept).chunk(2, dim=1)",
      "s, t = c(kept).chunk(2, dim=1)\n    s = s - s.mean(dim=0)"))  # fmt: skip
right("affine_coupling", "a loop over columns, in place", """
def affine_coupling(x, c, d):
    out = c(x[:, :d])
    n = x.shape[1] - d
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for j in range(n):
        log_det += out[:, j]
        x[:, d + j].mul_(out[:, j].exp()).add_(out[:, n + j])
    return x, log_det

def affine_inverse(z, c, d):
    out = c(z[:, :d])
    n = z.shape[1] - d
    b = (z[:, d:] - out[:, n:]) / out[:, :n].exp()
    return torch.hstack((z[:, :d], b)), out[:, :n].neg().sum(-1)
""")  # fmt: skip
right("affine_coupling", "a class, results in a list, numpy log-det", """
class Affine:
    def params(self, v, c, d):
        out = c(v[:, :d])
        return out[:, : out.shape[1] // 2], out[:, out.shape[1] // 2 :]

    def forward(self, x, c, d):
        s, t = self.params(x, c, d)
        return [torch.cat([x[:, :d], torch.addcmul(t, x[:, d:], torch.exp(s))], 1), s.sum(1).numpy()]

    def inverse(self, z, c, d):
        s, t = self.params(z, c, d)
        return [torch.cat([z[:, :d], (z[:, d:] - t) / torch.exp(s)], 1), (-s).sum(1).numpy()]

affine_coupling, affine_inverse = Affine().forward, Affine().inverse
""")  # fmt: skip

# ----------------------------------------------------------------------------------------------------- masked_coupling
wrong("masked_coupling", "checkerboard swapped", swap=("% 2 == 0", "% 2 == 1"))
wrong("masked_coupling", "stripes instead of a checkerboard", swap=("(rows + columns) % 2", "(0 * rows + columns) % 2"))
wrong("masked_coupling", "mask swapped", swap=("(1 - b) * s, (1 - b) * t", "b * s, b * t"))
wrong("masked_coupling", "mask forgotten on s and t", swap=("(1 - b) * s, (1 - b) * t", "s, t"))
wrong("masked_coupling", "log-det counts kept pixels", swap=("s.sum(dim=(1, 2, 3))",
      "c(b * x).chunk(2, dim=1)[0].sum(dim=(1, 2, 3))"))  # fmt: skip
wrong("masked_coupling", "c sees all of x", swap=("c(b * x)", "c(x)"))
wrong("masked_coupling", "log-det summed over the batch", swap=("s.sum(dim=(1, 2, 3))", "s.sum()"))
wrong("masked_coupling", "log-det for one channel only", loses="hidden",
      swap=("s.sum(dim=(1, 2, 3))", "s[:, 0].sum(dim=(1, 2))"))  # fmt: skip
wrong("masked_coupling", "sign of the log-det", swap=("t, s.sum", "t, -s.sum"))
right("masked_coupling", "the formula as it stands, mask from a loop", """
def checkerboard(height, width):
    return torch.tensor([[1.0 - (i + j) % 2 for j in range(width)] for i in range(height)])

def masked_coupling(x, b, c):
    out = c(x * b)
    s, t = out[:, : x.shape[1]], out[:, x.shape[1] :]
    z = b * x + (1 - b) * (x * torch.exp(s) + t)
    return z, torch.einsum("nchw,hw->n", s, (1 - b).to(s.dtype))
""")  # fmt: skip
right("masked_coupling", "torch.where and a boolean mask", """
def checkerboard(height, width):
    board = torch.zeros(height, width)
    board[::2, ::2] = board[1::2, 1::2] = 1
    return board

def masked_coupling(x, b, c):
    kept = b.bool().expand_as(x)
    s, t = torch.tensor_split(c(torch.where(kept, x, torch.zeros_like(x))), 2, dim=1)
    z = torch.where(kept, x, x * s.exp() + t)
    return z, s.masked_fill(kept, 0).flatten(1).sum(1)
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- squeeze
wrong("squeeze", "columns before rows", swap=("permute(0, 1, 3, 5, 2, 4)", "permute(0, 1, 5, 3, 2, 4)"))
wrong("squeeze", "a plain reshape", swap=("blocks.permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c", "x.reshape(n, 4 * c"))
wrong("squeeze", "unsqueeze is a plain reshape",
      swap=("blocks.permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h", "z.reshape(n, c // 4, 2 * h"))  # fmt: skip
wrong("squeeze", "channels of one input channel are not neighbours",
      swap=("permute(0, 1, 3, 5, 2, 4)", "permute(0, 3, 5, 1, 2, 4)"))  # fmt: skip
wrong("squeeze", "height and width exchanged", loses="hidden", source="""
def squeeze(x):
    n, c, h, w = x.shape
    return torch.nn.functional.pixel_unshuffle(x, 2).reshape(n, 4 * c, w // 2, h // 2)

def unsqueeze(z):
    return torch.nn.functional.pixel_shuffle(z, 2)
""")  # fmt: skip
wrong("squeeze", "unsqueeze remembers the last x", loses="hidden", source="""
memory = {}

def squeeze(x):
    memory["x"] = x
    return torch.nn.functional.pixel_unshuffle(x, 2)

def unsqueeze(z):
    return memory.get("x", z)
""")  # fmt: skip
wrong("squeeze", "one channel only", source="""
def squeeze(x):
    x = x[:, :1]
    return torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)

def unsqueeze(z):
    return torch.nn.functional.pixel_shuffle(z, 2)
""")  # fmt: skip
right("squeeze", "strided slices", """
def squeeze(x):
    parts = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(parts, dim=2).flatten(1, 2)

def unsqueeze(z):
    n, c, h, w = z.shape
    x = z.new_zeros(n, c // 4, 2 * h, 2 * w)
    for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        x[:, :, i::2, j::2] = z[:, k::4]
    return x
""")  # fmt: skip
right("squeeze", "torch's own functions", """
squeeze = torch.nn.PixelUnshuffle(2)
unsqueeze = torch.nn.PixelShuffle(2)
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------- multiscale_log_prob
wrong("multiscale_log_prob", "log-det subtracted", swap=("total + log_det", "total - log_det"))
wrong("multiscale_log_prob", "log-det forgotten", swap=("total + log_det -", "total -"))
wrong("multiscale_log_prob", "the second half leaves",
      swap=("leaving, h = (y, None) if k == len(levels) - 1 else y.chunk(2, dim=1)",
            "h, leaving = (None, y) if k == len(levels) - 1 else y.chunk(2, dim=1)"))  # fmt: skip
wrong("multiscale_log_prob", "nothing leaves before the end", source="""
def multiscale_log_prob(x, levels):
    total = 0.0
    for level in levels:
        x, log_det = level(x)
        total = total + log_det
    return total - 0.5 * (x**2 + math.log(2 * math.pi)).sum(dim=(1, 2, 3))
""")  # fmt: skip
wrong("multiscale_log_prob", "normalizing constant forgotten",
      swap=("(leaving**2 + math.log(2 * math.pi))", "(leaving**2)"))  # fmt: skip
wrong("multiscale_log_prob", "sum over the batch", swap=("sum(dim=(1, 2, 3))", "sum()"))
wrong("multiscale_log_prob", "works for at most two levels", loses="hidden", source="""
def normal(z):
    return -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(1)

def multiscale_log_prob(x, levels):
    y, total = levels[0](x)
    if len(levels) > 1:
        early, y = y.chunk(2, dim=1)
        y, log_det = levels[1](y)
        total = total + log_det + normal(early)
    return total + normal(y)
""")  # fmt: skip
wrong("multiscale_log_prob", "log-det of the first example for all", loses="hidden",
      swap=("total + log_det", "total + log_det[0]"))  # fmt: skip
right("multiscale_log_prob", "recursion and torch.distributions", """
def multiscale_log_prob(x, levels):
    normal = torch.distributions.Normal(torch.zeros((), dtype=x.dtype), 1.0)
    y, log_det = levels[0](x)
    if len(levels) == 1:
        return log_det + normal.log_prob(y).flatten(1).sum(1)
    early, rest = torch.tensor_split(y, 2, dim=1)
    return log_det + normal.log_prob(early).flatten(1).sum(1) + multiscale_log_prob(rest, levels[1:])
""")  # fmt: skip
right("multiscale_log_prob", "all latents joined first", """
def multiscale_log_prob(x, levels):
    latents, log_dets = [], []
    for level in levels[:-1]:
        x, log_det = level(x)
        n = x.shape[1] // 2
        latents.append(x[:, :n].reshape(len(x), -1))
        log_dets.append(log_det)
        x = x[:, n:]
    x, log_det = levels[-1](x)
    z = torch.hstack([*latents, x.reshape(len(x), -1)])
    return sum([*log_dets, log_det]) - 0.5 * (z * z).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
""")  # fmt: skip
