"""Gated PixelCNN: its gate, its two stacks, and what they see. What all pixel models share is in test_pixels.py."""

import pytest
import torch

from dgm_course.autoregressive.gated_pixel_cnn import GatedLayer, GatedPixelCNN, gate
from dgm_course.autoregressive.pixel_cnn import PixelCNN
from dgm_course.autoregressive.pixels import sees


def test_gate():
    x = torch.tensor([[0.5, -1.0, 0.0, 2.0]])
    expected = torch.tensor([[0.5, -1.0]]).tanh() * torch.tensor([[0.0, 2.0]]).sigmoid()
    torch.testing.assert_close(gate(x), expected)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_what_the_two_stacks_of_a_layer_see(kind):
    """Vertical: its row and the one above. Horizontal: vertical inputs of rows above alone, its own row to the left."""
    torch.manual_seed(0)
    layer = GatedLayer(4, 4, 3, kind).double()
    v, h = torch.randn(2, 1, 4, 6, 7, dtype=torch.double).requires_grad_().unbind()
    vertical, horizontal = layer(v, h)

    def seen(out, wrt):
        (slope,) = torch.autograd.grad(out[0, :, 4, 3].sum(), wrt, retain_graph=True, allow_unused=True)
        return {} if slope is None else {(i, j) for i, j in (slope[0].abs().sum(0) > 0).nonzero().tolist()}

    assert seen(vertical, v) == {(i, j) for i in (3, 4) for j in (2, 3, 4)}
    assert seen(vertical, h) == {}
    assert seen(horizontal, v) == {(i, j) for i in (2, 3) for j in (2, 3, 4)}
    assert seen(horizontal, h) == ({(4, 2)} if kind == "A" else {(4, 2), (4, 3)})


@pytest.mark.parametrize(("kernel", "layers"), [(3, 1), (5, 2), (3, 4), (7, 2)])
def test_what_a_pixel_sees_is_the_formula_without_a_blind_spot(kernel, layers):
    torch.manual_seed(0)
    model = GatedPixelCNN((1, 11, 15), 2, 8, layers, kernel).double()
    reach = kernel // 2 + layers - 1
    for i, j in [(8, 7), (10, 14), (2, 0), (0, 0)]:
        measured = sees(model, i, j, images=32, generator=torch.Generator().manual_seed(1))[0] > 0
        assert torch.equal(measured, model.field(i, j))
        assert measured[max(i - reach - 1, 0) : i, max(j - reach, 0) : j + reach + 1].all()


def test_it_sees_what_pixel_cnn_cannot():
    torch.manual_seed(0)
    gated, plain = GatedPixelCNN((1, 7, 13), 2, 8, 6, 3).double(), PixelCNN((1, 7, 13), 2, 8, 5, 3).double()
    x = torch.zeros(1, 1, 7, 13, dtype=torch.long)
    other = x.clone()
    other[0, 0, 5, 8] = 1  # one row up, two columns to the right
    for model, same in ((gated, False), (plain, True)):
        assert torch.equal(model.logits(x)[0, 0, 6, 6], model.logits(other)[0, 0, 6, 6]) == same


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        GatedPixelCNN((1, 4, 4), layers=0)
