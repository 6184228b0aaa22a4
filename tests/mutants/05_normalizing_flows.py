"""Lecture 05: wrong answers that must lose their cells, unusual right ones that must keep them all."""

from tests.grading.variants import right, wrong

# ------------------------------------------------------------------------------------------------------ log_prob_after
wrong("log_prob_after", "adds the log-slope", swap=("log_prob(x) - slope", "log_prob(x) + slope"))
wrong("log_prob_after", "no absolute value", swap=("slope(x).abs().log()", "slope(x).log()"))
wrong("log_prob_after", "slope at y", swap=("slope(x).abs()", "slope(y).abs()"))
wrong("log_prob_after", "forgets the slope", swap=("log_prob(x) - slope(x).abs().log()", "log_prob(x)"))
wrong("log_prob_after", "forgets the logarithm", swap=("slope(x).abs().log()", "slope(x).abs()"))
wrong("log_prob_after", "density at y", swap=("return log_prob(x)", "return log_prob(y)"))
wrong("log_prob_after", "constant slope", loses="hidden", source="""
def log_prob_after(y, inverse, slope, log_prob):
    x = inverse(y)
    s = slope(x)
    return log_prob(x) - (torch.log(s) if bool((s > 0).all()) else torch.full_like(x, 2.0).log())
""")  # fmt: skip
right("log_prob_after", "one point at a time", """
def log_prob_after(y, inverse, slope, log_prob):
    values = []
    for one in y.split(1):
        x = inverse(one)
        values.append(log_prob(x) - torch.log(torch.abs(slope(x))))
    return torch.cat(values)
""")  # fmt: skip
right("log_prob_after", "slope of the inverse, in numpy", """
import numpy as np

def log_prob_after(y, inverse, slope, log_prob):
    x = inverse(y)
    return np.log(np.abs(1 / slope(x).numpy())) + log_prob(x).numpy()
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------------ chain_log_prob
wrong("chain_log_prob", "subtracts the log-dets", swap=("total + log_det", "total - log_det"))
wrong("chain_log_prob", "keeps the last log-det only", swap=("total = total + log_det", "total = log_det"))
wrong("chain_log_prob", "base density of the data", swap=("log_base(h)", "log_base(x)"))
wrong("chain_log_prob", "every layer sees x", swap=("h, log_det = layer(h)", "h, log_det = layer(x)"))
wrong("chain_log_prob", "layers in reverse order", swap=("for layer in layers:", "for layer in reversed(layers):"))
wrong("chain_log_prob", "inverses in the order of the layers", swap=("in reversed(inverses)", "in inverses"))
wrong("chain_log_prob", "needs at least one layer", loses="hidden", source="""
def chain_log_prob(x, layers, log_base):
    h, total = layers[0](x)
    for layer in layers[1:]:
        h, log_det = layer(h)
        total = total + log_det
    return log_base(h) + total

def chain_sample(z, inverses):
    for inverse in inverses[::-1]:
        z = inverse(z)
    return z
""")  # fmt: skip
wrong("chain_log_prob", "two layers only", loses="hidden", source="""
def chain_log_prob(x, layers, log_base):
    total, h = 0.0, x
    for layer in layers[:2]:
        h, log_det = layer(h)
        total = total + log_det
    return log_base(h) + total

def chain_sample(z, inverses):
    for inverse in inverses[:2][::-1]:
        z = inverse(z)
    return z
""")  # fmt: skip
right("chain_log_prob", "recursive", """
def chain_log_prob(x, layers, log_base):
    if not layers:
        return log_base(x)
    h, log_det = layers[0](x)
    return log_det + chain_log_prob(h, layers[1:], log_base)

def chain_sample(z, inverses):
    return z if len(inverses) == 0 else chain_sample(inverses[-1](z), inverses[:-1])
""")  # fmt: skip
right("chain_log_prob", "functools.reduce and lists", """
from functools import reduce

def chain_log_prob(x, layers, log_base):
    log_dets = []

    def step(h, layer):
        out, log_det = layer(h)
        log_dets.append(log_det)
        return out

    z = reduce(step, layers, x)
    return sum(log_dets, log_base(z))

def chain_sample(z, inverses):
    return reduce(lambda h, inverse: inverse(h), inverses[::-1], z)
""")  # fmt: skip

# -------------------------------------------------------------------------------------------------------------- planar
wrong("planar", "sign of the log-det", swap=("(u @ w)).abs().log()", "(u @ w)).abs().log().neg()"))
wrong("planar", "tanh instead of its derivative", swap=("(1 - h**2) * (u @ w)", "h * (u @ w)"))
wrong("planar", "no derivative", swap=("(1 - h**2) * (u @ w)", "torch.ones_like(h) * (u @ w)"))
wrong("planar", "summed over the batch", swap=(".abs().log()", ".abs().log().sum()"))
wrong("planar", "u and w exchanged", swap=("z + h[:, None] * u,", "z + h[:, None] * w,"))
wrong("planar", "identity forgotten", swap=("return z + h[:, None] * u", "return h[:, None] * u"))
wrong("planar", "bend divides by the norm", swap=("* w / (w @ w)", "* w / w.norm()"))
wrong("planar", "bend without the minus one", swap=("softplus(dot) - 1", "softplus(dot)"))
wrong("planar", "no absolute value", swap=(").abs().log()", ").log()"), loses="hidden")
wrong("planar", "exponential overflows", loses="hidden",
      swap=("torch.nn.functional.softplus(dot)", "torch.log(1 + torch.exp(dot))"))  # fmt: skip
wrong("planar", "bends u inside the layer", loses="hidden",
      swap=("    h = torch.tanh(z", "    u = u if u @ w > -1 else bend(u, w)\n    h = torch.tanh(z"))  # fmt: skip
right("planar", "einsum, cosh and logaddexp", """
def planar(z, u, w, b):
    a = torch.einsum("bm,m->b", z, w) + b
    slope = torch.cosh(a) ** -2
    return z + torch.outer(a.tanh(), u), torch.log(torch.abs(1 + slope * torch.dot(u, w)))

def bend(u, w):
    dot = torch.dot(u, w)
    return u - w * (dot + 1 - torch.logaddexp(dot, torch.zeros_like(dot))) / torch.sum(w * w)
""")  # fmt: skip
right("planar", "log-det by autograd, one example at a time", """
def planar(z, u, w, b):
    def one(a):
        return a + torch.tanh(a + b) * (u @ w)

    xs, log_dets = [], []
    for row in z:
        a = (row @ w).clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(one(a), a)
        xs.append(row + u * torch.tanh(row @ w + b))
        log_dets.append(slope.abs().log())
    return torch.stack(xs), torch.stack(log_dets)

def bend(u, w):
    a = float(u @ w)
    mu = (a + math.log1p(math.exp(-a)) if a > 0 else math.log1p(math.exp(a))) - 1
    return u + (mu - a) / float(w @ w) * w
""")  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- sylvester
wrong("sylvester", "sign of the log-det", swap=(".logabsdet", ".logabsdet.neg()"))
wrong("sylvester", "no derivative", swap=("(1 - h**2)[:, :, None]", "torch.ones_like(h)[:, :, None]"))
wrong("sylvester", "tanh instead of its derivative", swap=("(1 - h**2)[:, :, None]", "h[:, :, None]"))
wrong("sylvester", "only the diagonal", loses="visible hidden", source="""
def sylvester(z, A, B, b):
    h = torch.tanh(z @ B.T + b)
    return z + h @ A.T, torch.log1p((1 - h**2) * (B @ A).diagonal()).sum(1)
""")  # fmt: skip
wrong("sylvester", "determinant without logarithm",
      swap=("torch.linalg.slogdet(small).logabsdet", "torch.linalg.det(small)"))  # fmt: skip
wrong("sylvester", "b forgotten", swap=("z @ B.T + b", "z @ B.T"))
wrong("sylvester", "dense matrix", loses="hidden", source="""
def sylvester(z, A, B, b):
    h = torch.tanh(z @ B.T + b)
    big = torch.eye(z.shape[1], dtype=z.dtype) + A @ ((1 - h**2)[:, :, None] * B)
    return z + h @ A.T, torch.linalg.slogdet(big).logabsdet
""")  # fmt: skip
wrong("sylvester", "two hidden units only", swap=("torch.eye(len(b), dtype=z.dtype)", "torch.eye(2)"), loses="hidden")
wrong("sylvester", "no absolute value", loses="hidden",
      swap=("torch.linalg.slogdet(small).logabsdet", "torch.logdet(small)"))  # fmt: skip
right("sylvester", "the other order of the product, example by example", """
def sylvester(z, A, B, b):
    xs, log_dets = [], []
    for row in z:
        h = torch.tanh(B @ row + b)
        small = torch.eye(B.shape[0]).to(z) + B @ A @ torch.diag(1 - h * h)
        xs.append(row + A @ h)
        log_dets.append(torch.log(torch.abs(torch.det(small))))
    return torch.stack(xs), torch.stack(log_dets)
""")  # fmt: skip
right("sylvester", "eigenvalues", """
def sylvester(z, A, B, b):
    a = torch.nn.functional.linear(z, B, b)
    small = torch.einsum("bd,dm,me->bde", torch.cosh(a) ** -2, B, A)
    return z + torch.nn.functional.linear(a.tanh(), A), torch.log(torch.abs(1 + torch.linalg.eigvals(small))).sum(-1)
""")  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- reverse_kl
wrong("reverse_kl", "sign of the log-det", swap=("- log_det -", "+ log_det -"))
wrong("reverse_kl", "no base", swap=("log_base(z) - log_det", "-log_det"))
wrong("reverse_kl", "no log-det", swap=(" - log_det", ""))
wrong("reverse_kl", "target at z", swap=("log_target(x)", "log_target(z)"))
wrong("reverse_kl", "base at x", swap=("log_base(z)", "log_base(x)"))
wrong("reverse_kl", "sum", swap=(".mean()", ".sum()"))
wrong("reverse_kl", "maximizes", swap=("return (log_base(z) - log_det - log_target(x)).mean()",
                                       "return -(log_base(z) - log_det - log_target(x)).mean()"))  # fmt: skip
wrong("reverse_kl", "one log-det for all", swap=("- log_det -", "- log_det[0] -"), loses="hidden")
wrong("reverse_kl", "always a normal base", loses="hidden",
      swap=("log_base(z)", "(-0.5 * (z**2 + math.log(2 * math.pi))).sum(1)"))  # fmt: skip
right("reverse_kl", "log-density of the model first", """
def reverse_kl(z, inverse, log_base, log_target):
    x, log_det = inverse(z)
    log_model = log_base(z) - log_det
    return torch.sum(log_model - log_target(x)) / z.shape[0]
""")  # fmt: skip
right("reverse_kl", "means of the parts, a Python number", """
def reverse_kl(z, inverse, log_base, log_target):
    x, log_det = inverse(z)
    cross_entropy = -float(log_target(x).mean())
    entropy = float(log_det.mean()) - float(log_base(z).mean())
    return cross_entropy - entropy
""")  # fmt: skip
