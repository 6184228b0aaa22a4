"""`fit`: it learns, selects, stops, and survives a kill; the budget chooses device and length."""

import runpy
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from dgm_course import training

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Line(nn.Module):
    """A small model with known best parameters: a Gaussian with mean `mu`, its loss without constants."""

    def __init__(self, dim=2):
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(dim))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def loss(self, x, context=None):
        self.calls += 1
        mean = self.mu if context is None else self.mu + context
        return 0.5 * ((x - mean) ** 2).sum(1).mean()


def points(n=512, mean=2.0, seed=0):
    return mean + torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def test_fit_finds_the_minimum():
    x, model = points(), Line()
    history = training.fit(model, x, steps=400, lr=0.05, schedule="cosine", batch_size=128, progress=False)
    assert torch.allclose(model.mu, x.mean(0), atol=0.02)
    assert history.steps == len(history.train) == 400
    assert history.train[-1] < history.train[0] and history.seconds > 0
    assert (history.device, history.budget, history.best_step) == ("cpu", training.budget().name, None)
    assert not model.training


def test_every_epoch_shows_each_row_once():
    seen = []

    def loss(model, x):
        seen.append(x[:, 0].clone())
        return model.loss(x)

    x = torch.arange(24.0).repeat(2, 1).T
    training.fit(Line(), x, steps=6, batch_size=8, loss=loss, progress=False)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert first.tolist() != second.tolist(), "a new order in each epoch"


def test_same_seed_same_bits_and_global_random_state_untouched():
    def noisy(model, x):
        return model.loss(x + torch.randn_like(x))

    results = []
    for _ in range(2):
        torch.manual_seed(len(results))
        state, model = torch.get_rng_state(), Line()
        history = training.fit(model, points(), steps=20, valid=points(64), loss=noisy, seed=3, progress=False)
        assert torch.equal(torch.get_rng_state(), state)
        results.append((model.mu.tolist(), history.train, history.valid))
    assert results[0] == results[1]
    other = training.fit(Line(), points(), steps=20, loss=noisy, seed=4, progress=False)
    assert other.train != results[0][1]


def test_validation_selects_the_best_parameters():
    """Training pulls towards 2, validation data lie at 1: the best model is one on the way."""
    model = Line()
    history = training.fit(
        model, points(mean=2.0), valid=points(mean=1.0, seed=1), steps=300, lr=0.02, eval_every=5, progress=False
    )
    assert 5 < history.best_step < 300
    assert history.valid_steps == list(range(5, 301, 5))
    assert history.best_valid == min(history.valid) < history.valid[-1] - 0.1
    with torch.no_grad():
        assert model.loss(points(mean=1.0, seed=1)).item() == pytest.approx(history.best_valid, abs=1e-6)


def test_validation_has_the_same_noise_each_time():
    history = training.fit(
        Line(),
        points(),
        valid=points(32),
        steps=20,
        lr=0.0,
        loss=lambda model, x: model.loss(x + torch.randn_like(x)),
        progress=False,
    )
    assert len(history.valid) == 20 and len(set(history.valid)) == 1
    assert history.best_step == 1 and len(set(history.train)) == 20


def test_patience_stops_early():
    history = training.fit(
        Line(), points(), valid=points(mean=1.0), steps=1000, lr=0.02, eval_every=5, patience=3, progress=False
    )
    assert history.stopped_early and history.steps == history.best_step + 15 < 1000


def test_a_validation_loss_that_is_never_finite_stops_too():
    history = training.fit(
        Line(), points(), valid=points() * torch.nan, steps=100, eval_every=1, patience=4, progress=False
    )
    assert history.steps == 4 and history.best_step is None


def test_average_is_what_is_validated_and_kept():
    x, valid, model = points(), points(64, seed=1), Line()
    history = training.fit(model, x, valid=valid, steps=60, lr=0.1, ema=0.95, progress=False)
    with torch.no_grad():
        assert model.loss(valid).item() == pytest.approx(history.best_valid, abs=1e-6)
    plain = Line()
    training.fit(plain, x, steps=history.best_step, lr=0.1, progress=False)
    assert not torch.allclose(model.mu, plain.mu, atol=1e-4), "the average lags behind the parameters"


def test_average_at_the_end_equals_one_computed_by_hand():
    path = []

    def loss(model, x):
        path.append(model.mu.detach().clone())
        return model.loss(x)

    model = Line()
    training.fit(model, points(), steps=30, lr=0.1, ema=0.9, loss=loss, progress=False)
    last = Line()
    training.fit(last, points(), steps=30, lr=0.1, progress=False)
    expected = path[0].clone()
    for step, mu in enumerate([*path[1:], last.mu.detach()], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * mu
    assert torch.allclose(model.mu, expected, atol=1e-6)
    assert model.calls == 30, "counters are copied, not averaged"


def test_context_goes_with_its_rows():
    context = 5 * torch.randn(512, 2, generator=torch.Generator().manual_seed(1))
    x, model = points(mean=1.0) + context, Line()
    history = training.fit(
        model, x, context=context, valid=(x[:100], context[:100]), steps=200, lr=0.05, progress=False
    )
    assert torch.allclose(model.mu, (x - context).mean(0), atol=0.1)
    assert history.best_valid < 1.3


def test_clip_limits_a_spike():
    def loss(model, x):
        return model.loss(x * 1e6)

    class Plain(torch.optim.SGD):
        """Plain gradient descent shows the size of the gradient that arrives."""

        def __init__(self, params, lr, weight_decay, fused):
            super().__init__(params, lr=lr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Plain)
        model = Line()
        training.fit(model, points(), steps=1, lr=1.0, clip=0.5, loss=loss, progress=False)
        assert model.mu.norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("broken", ["value", "gradient"])
def test_nan_names_the_step_and_keeps_finite_parameters(broken):
    def loss(model, x):
        if model.calls < 6:
            return model.loss(x)
        scale = (0 * model.mu).sum().sqrt() if broken == "gradient" else torch.nan
        return model.loss(x) + scale

    model = Line()
    with pytest.raises(FloatingPointError, match="at step 7"):
        training.fit(model, points(), steps=20, loss=loss, progress=False)
    assert torch.isfinite(model.mu).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(0, 2)}, "at least one"),
        ({"context": torch.zeros(3, 2)}, r"same number of rows, at least one, got \[512, 3\]"),
        ({"schedule": "linear"}, "schedule must be None, 'cosine' or a function, got 'linear'"),
        ({"patience": 3}, "needs valid="),
        ({"model": nn.Identity()}, "Identity has no parameters"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_clear_errors(arguments, message):
    arguments = {"model": Line(), "x": points(), "steps": 5, "progress": False, **arguments}
    with pytest.raises(ValueError, match=message):
        training.fit(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_quiet_without_progress_and_never_on_stderr(capfd):
    training.fit(Line(), points(), steps=5, progress=False)
    assert capfd.readouterr() == ("", "")
    training.fit(Line(), points(), steps=5)
    out, err = capfd.readouterr()
    assert err == "" and "Line on cpu" in out and "loss" in out


RUN = """
import sys, torch
from dgm_course import flows, training

def run(checkpoint):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = flows.realnvp(2, layers=2, hidden=(16,))
    x = torch.randn(500, 2)

    def loss(model, x):
        if model.training:
            print("step", flush=True)
        return model.loss(x + 0.1 * torch.randn_like(x))

    history = training.fit(model, x, valid=x[:100], steps=120, batch_size=64, lr=1e-2, ema=0.95, schedule="cosine",
                           weight_decay=1e-3, eval_every=10, loss=loss, checkpoint=checkpoint, progress=False)
    return model.state_dict(), history.train, history.valid, history.best_step

if __name__ == "__main__":
    run(sys.argv[1])
"""


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, capsys):
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "killed.ckpt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(55):  # somewhere between two checkpoints
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    run = runpy.run_path(str(tmp_path / "run.py"))["run"]
    killed, whole = [], []
    for name, results in (("killed", killed), ("whole", whole)):
        results += run(tmp_path / f"{name}.ckpt")
        results.append(capsys.readouterr().out.count("step"))
    assert whole[-1] == 120 and 0 < killed[-1] <= 70, "it went on, and did not start anew"
    assert whole[1:-1] == killed[1:-1]
    for name, value in whole[0].items():
        assert torch.equal(value, killed[0][name]), name
    again = run(tmp_path / "whole.ckpt")
    assert again[1] == whole[1] and capsys.readouterr().out == "", "a finished run is not run again"
    assert all(torch.equal(value, again[0][name]) for name, value in whole[0].items())


@pytest.mark.parametrize("moment", [(torch, "save"), (training.os, "fsync"), (training.os, "replace")])
def test_half_a_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, moment):
    path = tmp_path / "run.ckpt"
    training._save(path, {"a": torch.ones(3)})

    def torn(*arguments):
        if moment[1] == "save":
            arguments[1].write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(*moment, torn)
    with pytest.raises(KeyboardInterrupt):
        training._save(path, {"a": torch.zeros(3)})
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    training.fit(Line(), points(), steps=5, checkpoint=path, progress=False)
    with pytest.raises(ValueError, match=r"'lr': 0.001.*'lr': 0.1"):
        training.fit(Line(), points(), steps=5, lr=0.1, checkpoint=path, progress=False)
    with pytest.raises(ValueError, match="'data'"):
        training.fit(Line(), points(seed=9), steps=5, checkpoint=path, progress=False)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged: remove it"):
        training.fit(Line(), points(), steps=5, checkpoint=path, progress=False)


def test_history_plots_itself_and_prints():
    history = training.fit(Line(), points(), valid=points(32), steps=40, progress=False)
    ax = history.plot()
    assert ax.get_xlabel() == "step" and "nats" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["training", "validation"]
    plt.close(ax.figure)
    assert "40 steps" in repr(history) and "on cpu" in repr(history) and "best validation loss" in repr(history)


def test_budget(monkeypatch):
    monkeypatch.setenv("DGM_BUDGET", "smoke")
    assert training.budget() == training.Budget("smoke", torch.device("cpu"))
    assert training.budget().pick(smoke=1, cpu=2, gpu=3) == 1
    monkeypatch.setenv("DGM_BUDGET", "cpu")
    assert training.budget().pick(smoke=1, cpu=2, gpu=3) == 2
    assert training.Budget("gpu", torch.device("cuda")).pick(smoke=1, cpu=2) == 2, "gpu is as cpu where nothing is said"
    monkeypatch.setenv("DGM_BUDGET", "fast")
    with pytest.raises(ValueError, match="must be one of smoke, cpu, gpu, got 'fast'"):
        training.budget()


@pytest.mark.parametrize("cuda", [False, True])
def test_budget_follows_the_machine(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.delenv("DGM_BUDGET", raising=False)
    name, device = ("gpu", "cuda") if cuda else ("cpu", "cpu")
    assert training.budget() == training.Budget(name, torch.device(device))
    monkeypatch.setenv("DGM_BUDGET", "gpu")
    if cuda:
        assert training.budget().device.type == "cuda"
    else:
        with pytest.raises(ValueError, match="no CUDA device"):
            training.budget()


def test_fit_costs_little_more_than_its_steps():
    """The loop itself (batches, checks, history) may cost half a millisecond a step on a slow machine."""
    began = time.process_time()
    training.fit(Line(), points(), steps=1000, progress=False)
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize("device", DEVICES)
def test_trains_on_the_device_and_comes_back(device):
    model = Line()
    history = training.fit(model, points(), valid=points(64), steps=50, lr=0.1, ema=0.9, device=device, progress=False)
    assert history.device == device and model.mu.device.type == "cpu"
    assert torch.allclose(model.mu, points().mean(0), atol=0.3)
