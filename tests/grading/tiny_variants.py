"""Variants of the tiny assignment's answers."""

from tests.grading.variants import right, wrong

wrong("scale", "divides", swap=("factor * x", "x / factor"), loses="visible")
wrong("scale", "forgets the absolute value", swap=("abs(factor)", "factor"), loses="hidden")
wrong("scale", "log-det of two dimensions only", swap=("x.shape[1] *", "2 *"), loses="hidden")
wrong("scale", "log-det summed over the batch", swap=("x.shape[:1]", "()"))
wrong("scale", "forgets the log-det", swap=("return z, log_det", "return z"))
right("scale", "lists, numpy and a loop", """
def scale(x, factor):
    rows = [[factor * v for v in row] for row in x.tolist()]
    return torch.tensor(rows), np.log(np.abs(np.full(len(rows), factor))) * x.shape[1]
""")  # fmt: skip
right("scale", "changes its input in place, prints and warns", """
import warnings

warnings.warn("careful")  # within the function, it would cost the points under stock nbgrader

def scale(x, factor):
    print("x" * 100_000)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    x.mul_(factor)
    return x, torch.log(torch.tensor(abs(factor))).expand(len(x)) * x[0].numel()
""")  # fmt: skip

wrong("coupling", "swaps the halves", swap=("[x1, shifted]", "[shifted, x1]"))
wrong("coupling", "the network sees both halves", """
def coupling(x, net):
    x1, x2 = x.chunk(2, dim=1)
    return torch.cat([x1, x2 + net(x1 + x2)], dim=1)
""")  # fmt: skip
wrong("coupling", "works for two dimensions only", swap=("x.chunk(2, dim=1)", "(x[:, :1], x[:, 1:2])"), loses="hidden")
wrong("coupling", "calls the network with a string", swap=("net(x1)", "net('x1')"))
right("coupling", "in place on a copy", """
def coupling(x, net):
    z = x.clone()
    half = x.shape[1] // 2
    z[:, half:] += net(z[:, :half])
    return z
""")  # fmt: skip

wrong("make_flow", "inverse is the forward map", swap=("z - self", "z + self"), loses="hidden")
wrong("make_flow", "a syntax error", "class Flow\n    pass")
right("make_flow", "a function that makes a namespace", """
from types import SimpleNamespace

def Flow(shift):
    return SimpleNamespace(forward=lambda x: x + shift, inverse=lambda z: z - shift)
""")  # fmt: skip

wrong("slope", "sums", swap=("mean()", "sum()"), loses="hidden")
wrong("slope", "cuts the graph", swap=("values = critic(x)", "values = critic(x).detach()"), loses="hidden")
right("slope", "a loop over the points", """
def slope(critic, x):
    return sum(critic(row[None]) for row in x).squeeze() / len(x)
""")  # fmt: skip
