"""PixelRNN: skewing, its LSTMs against loops, and what they see. What all pixel models share is in test_pixels.py."""

import pytest
import torch

from dgm_course.autoregressive.pixel_rnn import DiagonalBiLSTM, DiagonalLSTM, PixelRNN, RowLSTM, cell, skew, unskew
from dgm_course.autoregressive.pixels import sees


def seen(layer, i, j):
    """What state (i, j) of a layer depends on, `(h, w)` of bool, by gradient."""
    x = torch.randn(4, 8, 6, 7, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x)[:, :, i, j].sum(), x)
    return slope.abs().amax((0, 1)) > 0


def place(i, j):
    return i - torch.arange(6)[:, None], torch.arange(7)[None] - j


def test_a_column_of_the_skewed_map_is_a_diagonal():
    x = torch.arange(1, 7.0).view(1, 1, 2, 3)
    assert skew(x)[0, 0].tolist() == [[1, 2, 3, 0], [0, 4, 5, 6]]
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(unskew(skew(x)), x)
    assert torch.equal(skew(x)[0, 0, :, 3], torch.stack([x[0, 0, i, 3 - i] for i in range(4)] + [torch.zeros(())]))


def test_one_step_is_torchs_lstm_cell():
    lstm = torch.nn.LSTMCell(3, 4)
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    i, f, g, o = (x @ lstm.weight_ih.T + lstm.bias_ih + h @ lstm.weight_hh.T + lstm.bias_hh).chunk(4, 1)
    for got, expected in zip(cell(torch.cat([o, f, i, g], 1), c), lstm(x, (h, c)), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_diagonal_lstm_is_a_loop_over_pixels(mirror):
    torch.manual_seed(0)
    layer, x = DiagonalLSTM(4, mirror).double(), torch.randn(2, 8, 3, 5, dtype=torch.double)
    inputs, weight, zero = layer.from_input(x), layer.from_state.weight, torch.zeros(2, 4, dtype=torch.double)
    side, h, c = (1 if mirror else -1), {}, {}
    for i in range(3):
        for j in reversed(range(5)) if mirror else range(5):
            above, beside = h.get((i - 1, j), zero), h.get((i, j + side), zero)
            gates = inputs[:, :, i, j] + above @ weight[:, :, 0].T + beside @ weight[:, :, 1].T + layer.from_state.bias
            h[i, j], c[i, j] = cell(gates, c.get((i, j + side), zero))
    states = layer(x)
    for (i, j), state in h.items():
        torch.testing.assert_close(states[:, :, i, j], state)


def test_the_row_lstm_is_a_loop_over_pixels():
    torch.manual_seed(0)
    layer, x = RowLSTM(4).double(), torch.randn(2, 8, 3, 5, dtype=torch.double)
    inputs, weight, zero = layer.from_input(x), layer.from_state.weight, torch.zeros(2, 4, dtype=torch.double)
    h, c, states = {}, {}, layer(x)
    for i in range(3):
        for j in range(5):
            gates = inputs[:, :, i, j] + layer.from_state.bias
            gates = gates + sum(h.get((i - 1, j + k - 1), zero) @ weight[:, :, k].T for k in range(3))
            h[i, j], c[i, j] = cell(gates, c.get((i - 1, j), zero))
            torch.testing.assert_close(states[:, :, i, j], h[i, j])


def test_what_the_layers_see():
    """Rows: a triangle. Diagonals from the left: up and left, from the right: up and right; both: all before."""
    torch.manual_seed(0)
    up, right = place(4, 3)
    row = (up >= 0) & (right >= -up - 1) & (right <= up)
    assert torch.equal(seen(RowLSTM(4).double(), 4, 3), row)
    assert torch.equal(seen(DiagonalLSTM(4).double(), 4, 3), (up >= 0) & (right <= 0))
    assert torch.equal(seen(DiagonalLSTM(4, mirror=True).double(), 4, 3), (up >= 0) & (right >= 0))
    assert torch.equal(seen(DiagonalBiLSTM(4).double(), 4, 3), (up > 0) | (up == 0) & (right <= 0))


@pytest.mark.parametrize("kind", ["row", "diagonal"])
@pytest.mark.parametrize(("kernel", "layers"), [(3, 1), (5, 2), (7, 1)])
def test_what_a_pixel_sees_is_the_formula(kind, kernel, layers):
    torch.manual_seed(0)
    model = PixelRNN((1, 9, 15), 2, 8, layers, kind, kernel).double()
    for i, j in [(7, 7), (8, 14), (3, 11), (1, 0), (0, 0)]:
        measured = sees(model, i, j, images=32, generator=torch.Generator().manual_seed(1))[0] > 0
        assert torch.equal(measured, model.field(i, j))


def test_the_row_lstm_sees_a_triangle():
    torch.manual_seed(0)
    model = PixelRNN((1, 6, 13), 2, 8, 1, "row", 3).double()
    measured = sees(model, 5, 6, images=32, generator=torch.Generator().manual_seed(1))[0] > 0
    assert all(measured[5 - up, 6 + up] and not measured[5 - up, 7 + up :].any() for up in range(1, 6))


def test_the_diagonal_bilstm_misses_one_pixel_at_most():
    """By changing inputs: the last pixel of the row above, and no other of those before."""
    torch.manual_seed(0)
    model = PixelRNN((1, 4, 6), 2, 8, 2, "diagonal", 3).double()
    x = torch.randint(2, (16, 1, 4, 6))
    unseen = []
    for place in range(3 * 6 + 2):
        other = x.clone()
        other[:, 0, place // 6, place % 6] = 1 - other[:, 0, place // 6, place % 6]
        if torch.equal(model.logits(other)[:, 0, 3, 2], model.logits(x)[:, 0, 3, 2]):
            unseen.append((place // 6, place % 6))
    assert unseen == [(2, 5)]


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="'column'"):
        PixelRNN((1, 4, 4), kind="column")
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        PixelRNN((1, 4, 4), layers=0)
