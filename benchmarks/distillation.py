"""Parallel WaveNet's bargain: samples of a WaveNet teacher, naive and by queues, against those of its students.

One sequence at a time. The teacher has 2 stacks of 10 layers (it sees 2,048 entries) and a mixture of 5 logistics. The
students are IAFs: four flows of small WaveNets, as in the paper, and two of MADEs. Time does not depend on how well a
student was trained; here none is.
"""

import torch

from benchmarks.timing import interleaved, report
from dgm_course.autoregressive.wavenet import WaveNet, WaveNetConditioner
from dgm_course.distributions import StandardLogistic
from dgm_course.flows import Flow, iaf
from dgm_course.transforms import Affine, Autoregressive, Compose, Inverse

LENGTH, NAIVE = 1000, "naive"


def students(length):
    """The two students, name -> flow."""
    nets = [WaveNetConditioner(length, channels=16, skip=16, layers=10, stacks=1) for _ in range(4)]
    parallel = Compose(*(Inverse(Autoregressive(net, Affine())) for net in nets))
    return {"WaveNets": Flow(StandardLogistic((length,)), parallel), "MADEs": iaf(length, 2, (128,))}


def main(rounds, length=LENGTH):
    torch.manual_seed(0)
    teacher = WaveNet("logistic", channels=32, skip=32, layers=10, stacks=2)
    runs = {name: lambda flow=flow: flow.sample(1) for name, flow in students(length).items()}
    runs["cached"] = lambda: teacher.sample(1, length)
    table = interleaved(runs, max(3, rounds // 6), warmup=1)
    table |= interleaved({NAIVE: lambda: teacher.sample(1, length, cached=False)}, max(2, rounds // 30), warmup=0)
    for name in ("WaveNets", "MADEs"):
        for slow in ("cached", NAIVE):
            table[name][f"faster than {slow}:"] = round(table[slow]["ms"] / table[name]["ms"])
    table["cached"]["faster than naive:"] = round(table[NAIVE]["ms"] / table["cached"]["ms"], 1)
    report("distillation", {f"One sample of length {length}": table}, ())


if __name__ == "__main__":
    main(20)
