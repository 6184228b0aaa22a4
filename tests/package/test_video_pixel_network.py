"""Video Pixel Network on films of a few pixels, and on moving digits."""

import itertools

import pytest
import torch

from dgm_course import data
from dgm_course.autoregressive.video_pixel_network import ConvLSTM, MultiplicativeUnit, VideoPixelNetwork


def make(size=(3, 4), levels=2, **options):
    return VideoPixelNetwork(size, levels, **dict(channels=4, encoder=1, decoder=1) | options).double()


def films(model, n, length):
    return torch.randint(model.levels, (n, length, 1, *model.size))


def in_order(logits):
    """`(batch, frames, levels, h, w)` to `(batch, pixels in the order of the film, levels)`."""
    return logits.movedim(2, -1).flatten(1, 3)


def test_multiplicative_unit_is_equation_3():
    unit, h = (
        MultiplicativeUnit(2, lambda c_in, c_out, kernel: torch.nn.Conv2d(c_in, c_out, 1)),
        torch.randn(1, 2, 1, 1),
    )
    w, b = unit.conv.weight.view(4, 2, 2), unit.conv.bias.view(4, 2)
    g1, g2, g3 = (torch.sigmoid(w[i] @ h.view(2) + b[i]) for i in range(3))
    wanted = g1 * torch.tanh(g2 * h.view(2) + g3 * torch.tanh(w[3] @ h.view(2) + b[3]))
    torch.testing.assert_close(unit(h).view(2), wanted)


def test_convolutional_lstm_on_one_pixel_is_the_lstm_of_torch():
    ours, theirs = ConvLSTM(3), torch.nn.LSTMCell(3, 3)
    with torch.no_grad():
        ours.conv.weight.zero_()
        w_in, w_out, bias = (p.view(4, 3, -1)[[0, 1, 3, 2]].flatten(0, 1) for p in list(theirs.parameters())[:3])
        ours.conv.weight[:, :, 1, 1] = torch.cat([w_in, w_out], dim=1)
        ours.conv.bias.copy_(bias[:, 0])
        theirs.bias_hh.zero_()
    state = tuple(torch.zeros(2, 3, 1, 1) for _ in range(2))
    their_state = tuple(s.flatten(1) for s in state)
    for x in torch.randn(4, 2, 3):
        state, their_state = ours(x[:, :, None, None], state), theirs(x, their_state)
    torch.testing.assert_close([s.flatten(1) for s in state], list(their_state))


@pytest.mark.parametrize("levels", [2, 4])
def test_a_pixel_depends_on_earlier_pixels_and_frames_alone(levels):
    model = make(levels=levels, context_dim=2)
    x, context = films(model, 2, 3), torch.randn(2, 2, dtype=torch.float64)
    before, pixels = in_order(model.logits(x, context)), 3 * 3 * 4
    for i in range(pixels):
        changed = x.flatten(1).clone()
        changed[:, i] = (changed[:, i] + 1) % levels
        moved = (in_order(model.logits(changed.view_as(x), context)) != before).any(2).any(0)
        assert not moved[: i + 1].any(), f"pixel {i} reaches itself or an earlier one"
        assert i >= 24 or moved[(i // 12 + 1) * 12 :].any(), "and it reaches the next frame"


def test_gradients_reach_every_earlier_frame_and_no_later_one():
    model, scaled = make(), []
    model.pixels = lambda v, plain=model.pixels: scaled.append(plain(v).requires_grad_()) or scaled[-1]
    logits = model.logits(films(model, 1, 4))
    frames, own = scaled  # what the encoder and what the decoder got
    for t in range(4):
        grads = torch.autograd.grad(logits[0, t].sum(), (frames, own), retain_graph=True)
        reached = [(g.abs().view(-1, 12).sum(1) > 0).tolist() for g in grads]
        assert reached[0] == [s < t for s in range(3)]
        assert reached[1] == [s == t for s in range(4)]


def test_probabilities_of_all_films_sum_to_one():
    for size, length, levels in (((2, 2), 2, 2), ((1, 2), 2, 4), ((2, 1), 4, 2)):
        model = make(size, levels)
        pixels = length * size[0] * size[1]
        x = torch.tensor(list(itertools.product(range(levels), repeat=pixels))).view(-1, length, 1, *size)
        assert model.log_prob(x).logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def test_parallel_is_frame_by_frame_with_a_state():
    model = make()
    x, state, total = films(model, 2, 4), model.start(2), 0
    for frame in x.unbind(1):
        log_p = model.decode(frame, model.seen(state, None)).log_softmax(1).gather(1, frame)
        total, state = total + log_p.flatten(1).sum(1), model.remember(frame, state)
    torch.testing.assert_close(model.log_prob(x), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "levels", "decoder"), [((3, 4), 2, 1), ((9, 15), 3, 1), ((1, 5), 2, 0)])
def test_cached_samples_are_the_naive_ones(size, levels, decoder):
    model = make(size, levels, decoder=decoder, context_dim=1)
    context, prefix = torch.randn(2, 1, dtype=torch.float64), films(model, 2, 1)
    for kept, temperature in ((None, 1.0), (prefix, 0.5)):
        fast, slow = (
            model.sample(2, 2, kept, context, temperature, torch.Generator().manual_seed(3), cached=cached)
            for cached in (True, False)
        )
        assert (fast == slow).all() and fast.shape == (2, 2, 1, *size)
        assert kept is None or (fast[:, :1] == kept).all()
    assert (model.sample(2, 2, context=context) != model.sample(2, 2, context=context)).any()


def test_reach_is_what_the_decoder_sees():
    model = make((15, 21), decoder=2)
    frame = torch.zeros(1, 1, 15, 21, dtype=torch.float64, requires_grad=True)
    model.pixels = lambda v: v
    logits = model.decode(frame, model.seen(model.start(1), None))
    (grad,) = torch.autograd.grad(logits[0, :, 12, 10].sum(), frame)
    rows, columns = (grad[0, 0] != 0).nonzero().unbind(1)
    assert model.reach == 7
    assert (rows.min(), columns.min(), columns.max()) == (12 - 7, 10 - 7, 10 + 7)


def test_samples_come_as_often_as_log_prob_says():
    model, n = make((1, 2)), 20_000
    x = model.sample(n, 2, generator=torch.Generator().manual_seed(0)).flatten(1)
    found = (x * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16) / n
    p = model.log_prob(torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 2, 1, 1, 2)).exp().detach()
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_float32_on_every_device(device):
    model = make(levels=4, context_dim=1)
    x, context = films(model, 2, 3), torch.randn(2, 1)
    wanted = model.log_prob(x, context.double())
    model, x, context = model.float().to(device), x.to(device), context.to(device)
    got = model.log_prob(x, context)
    torch.testing.assert_close(got.cpu().double(), wanted, rtol=1e-4, atol=1e-4)
    samples = model.sample(2, 2, x[:, :1], context, generator=torch.Generator(device).manual_seed(0))
    assert samples.device.type == device and torch.isfinite(model.log_prob(samples, context)).all()


def test_it_learns_moving_digits_beyond_what_single_pixels_tell():
    x = (data.moving_digits(4, frames=4, digits=1, size=32)[..., ::4, ::4] > 127).long()
    rate = x.double().mean()
    alone = -(rate * rate.log() + (1 - rate) * (1 - rate).log()).item() * x[0].numel()
    model = VideoPixelNetwork((8, 8), channels=8, encoder=1, decoder=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    assert model.loss(x).item() < 0.7 * alone


def test_bad_input_is_refused():
    model, x = make(), torch.zeros(2, 3, 1, 3, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"x must lie in 0 ... 1, got values from 2 to 2"):
        model.log_prob(x + 2)
    with pytest.raises(TypeError, match="tensor of integers"):
        model.log_prob(x.float())
    with pytest.raises(ValueError, match=r"x must have shape \(batch, any, 1, 3, 4\), got \(2, 3, 1, 4, 3\)"):
        model.log_prob(x.mT)
    with pytest.raises(ValueError, match="the batch is empty"):
        model.loss(x[:0])
    with pytest.raises(ValueError, match=r"films must have at least one frame, got shape \(2, 0, 1, 3, 4\)"):
        model.log_prob(x[:, :0])
    with pytest.raises(ValueError, match="n and length must be at least 1, got 2 and 0"):
        model.sample(2, 0)
    for prefix in (x[:, :0], x, x[:1]):
        with pytest.raises(ValueError, match=r"prefix must have shape \(2, 1 to 2, 1, 3, 4\), got"):
            model.sample(2, 2, prefix)
    with pytest.raises(ValueError, match="takes no context"):
        model.log_prob(x, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        model.sample(1, 1, temperature=-1)
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        make(levels=1)
