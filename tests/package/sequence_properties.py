"""What every model of sequences must do, whatever it is made of. The tests of each model call these."""

import copy
import itertools
import re

import pytest
import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def contexts(model, n, length, dtype=torch.float64):
    """Random contexts that the model takes, as keyword arguments."""
    context = {"context": torch.randn(n, model.context_dim, dtype=dtype)} if model.context_dim else {}
    return context | ({"local": torch.randn(n, model.local_dim, length, dtype=dtype)} if model.local_dim else {})


def random_sequence(model, n, length):
    return torch.randint(model.levels, (n, length))


def outputs(model, x, **context):
    """Parameters of every entry, `(batch, length, n_params)`, as `log_prob` has them."""
    previous = torch.cat([model.start(len(x)), x], dim=1)[:, :-1]
    return model(previous, model.condition(*x.shape, **context))


def check_normalized(model, length):
    """The probabilities of all sequences sum to one."""
    x = torch.tensor(list(itertools.product(range(model.levels), repeat=length)))
    total = model.log_prob(x, **{k: v.expand(len(x), *v.shape[1:]) for k, v in contexts(model, 1, length).items()})
    assert total.logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def check_causal(model, x, change):
    """An entry's parameters depend on earlier entries alone: exactly no change in those before and at a changed one."""
    context = contexts(model, len(x), x.shape[1])
    before = outputs(model, x, **context)
    for t in range(x.shape[1]):
        changed = x.clone()
        changed[:, t] = change(x[:, t])
        moved = (outputs(model, changed, **context) != before).flatten(2).any(2).any(0)
        assert not moved[: t + 1].any(), f"entry {t} reaches itself or an earlier one"
        assert t + 1 == len(moved) or moved[t + 1], f"entry {t} does not reach the next"


def seen(model, x):
    """Which inputs the last output sees, by gradient: a boolean for each position of the embedded sequence."""
    kept = []
    hook = model.embed.register_forward_hook(lambda *args: kept.append(args[2].requires_grad_()) or args[2])
    params = outputs(model, x)
    hook.remove()
    (grad,) = torch.autograd.grad(params[:, -1].sum(), kept[0])
    return grad.abs().sum((0, 2)) > 0


def check_sequential(model, x):
    """log p(x) is the sum over entries of what the model says of each when it is shown the earlier ones alone."""
    context = contexts(model, *x.shape)
    total = torch.zeros(len(x), dtype=torch.float64)
    for t in range(x.shape[1]):
        part = {k: v[..., : t + 1] if k == "local" else v for k, v in context.items()}
        params = outputs(model, x[:, : t + 1], **part)[:, -1]
        total = total + model.distribution(params).log_prob(x[:, t])
    torch.testing.assert_close(model.log_prob(x, **context), total, rtol=1e-12, atol=1e-12)


def check_short(model, x):
    """The first entries of a sequence have the probability that they have alone, in or beyond the receptive field."""
    context = contexts(model, *x.shape)
    entries = model.distribution(outputs(model, x, **context)).log_prob(x)
    assert model.reach is None or 1 < model.reach < x.shape[1]
    for t in range(1, x.shape[1] + 1):
        part = {k: v[..., :t] if k == "local" else v for k, v in context.items()}
        torch.testing.assert_close(model.log_prob(x[:, :t], **part), entries[:, :t].sum(1), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"sequences must have at least one entry, got shape \(2, 0\)"):
        model.log_prob(x[:2, :0], **{k: v[:2, :, :0] if k == "local" else v[:2] for k, v in context.items()})


def check_cached(model, length, prefix, n=3):
    """Cached and naive samples are the same, the prefix stays, and log_prob takes what sample gives."""
    context = contexts(model, n, length)
    for kept, temperature in ((None, 1.0), (prefix, 0.7), (prefix[0], 0.0)):
        given = dict(prefix=kept, temperature=temperature, **context)
        fast, slow = (
            model.sample(n, length, generator=torch.Generator().manual_seed(5), cached=cached, **given)
            for cached in (True, False)
        )
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
        assert fast.shape == (n, length) and torch.isfinite(model.log_prob(fast, **context)).all()
        if kept is not None:
            assert (fast[:, : kept.shape[-1]] == kept).all()
    assert (model.sample(n, length, **context) != model.sample(n, length, **context)).any(), "new draws differ"


def check_sampled_frequencies(model, n=20_000):
    """Sequences of two entries come as often as log_prob says."""
    x = model.sample(n, 2, generator=torch.Generator().manual_seed(0))
    found = (x[:, 0] * model.levels + x[:, 1]).bincount(minlength=model.levels**2) / n
    p = model.log_prob(torch.cartesian_prod(*[torch.arange(model.levels)] * 2)).exp().detach()
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def check_bad_input(model):
    """The errors that all models of sequences of integers share."""
    top = model.levels - 1
    x = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"x must lie in 0 ... {top}, got values from 0 to {top + 1}"):
        model.log_prob(x + torch.tensor([0, 0, 0, top + 1]))
    with pytest.raises(TypeError, match="tensor of integers"):
        model.log_prob(x.float())
    with pytest.raises(ValueError, match=r"x must have shape \(batch, any\), got \(2, 4, 1\)"):
        model.log_prob(x[..., None])
    with pytest.raises(ValueError, match="the batch is empty"):
        model.loss(x[:0])
    with pytest.raises(ValueError, match="n and length must be at least 1, got 0 and 4"):
        model.sample(0, 4)
    for shape in ((2, 0), (2, 5), (3, 2)):
        with pytest.raises(ValueError, match=re.escape(f"prefix must have shape (2, 1 to 4), got {shape}")):
            model.sample(2, 4, prefix=torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match="prefix must lie in"):
        model.sample(2, 4, prefix=torch.full((2, 1), top + 1))
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        model.sample(2, 4, temperature=-1)
    with pytest.raises(ValueError, match="takes no context"):
        model.log_prob(x, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="takes no local context"):
        model.log_prob(x, local=torch.zeros(2, 1, 4))


def check_device(model, device):
    """A model in float32 gives the numbers of its float64 self, and samples, on any device."""
    x = random_sequence(model, 3, 12) if model.start(1).dtype == torch.long else torch.rand(3, 12)
    context = contexts(model, 3, 12, torch.float32)
    wanted = copy.deepcopy(model).double().log_prob(x, **{k: v.double() for k, v in context.items()})
    model, context = model.to(device), {k: v.to(device) for k, v in context.items()}
    got = model.log_prob(x.to(device), **context)
    assert got.dtype == torch.float32 and got.device.type == device
    torch.testing.assert_close(got.cpu().double(), wanted, rtol=1e-4, atol=1e-4)
    model.loss(x.to(device), **context).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    generator = torch.Generator(device).manual_seed(0)
    samples = model.sample(3, 12, prefix=x[0, :2].to(device), generator=generator, **context)
    assert samples.device.type == device and torch.isfinite(model.log_prob(samples, **context)).all()


def check_learns(model, steps=60):
    """A few steps of Adam on a periodic sequence bring the loss far below that of a fair die."""
    x = (torch.arange(12) + torch.arange(3)[:, None]) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    assert model.loss(x).item() < 0.3 * 12 * torch.tensor(model.levels).log().item()
    sample = model.sample(2, 12, prefix=torch.tensor([0, 1, 2, 0]), temperature=0)
    assert (sample == x[0]).all()
