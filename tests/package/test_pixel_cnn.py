"""PixelCNN: its masks, what it sees, and its blind spot. What all pixel models share is in test_pixels.py."""

import pytest
import torch

from dgm_course.autoregressive.pixel_cnn import MaskedConv2d, PixelCNN
from dgm_course.autoregressive.pixels import sees

DRAWN = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_the_5x5_masks_are_as_drawn():
    assert MaskedConv2d(1, 1, 5, "A").mask[0, 0].tolist() == DRAWN
    type_b = [row[:] for row in DRAWN]
    type_b[2][2] = 1
    assert MaskedConv2d(1, 1, 5, "B").mask[0, 0].tolist() == type_b
    assert MaskedConv2d(1, 1, (1, 3), "B").mask[0, 0].tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("A", [[0, 0, 0], [1, 0, 0], [1, 1, 0]]), ("B", [[1, 0, 0], [1, 1, 0], [1, 1, 1]])],
)
def test_colours_of_the_pixel_itself(kind, seen):
    """Row: R, G, B of the output. Column: R, G, B of the input. Elsewhere all colours are treated alike."""
    mask = MaskedConv2d(3, 6, 3, kind, groups=3).mask
    assert mask[:3, :, 1, 1].tolist() == mask[3:, :, 1, 1].tolist() == seen
    assert (mask[:, :, 0] == 1).all() and (mask[:, :, 1, 0] == 1).all()
    assert (mask[:, :, 2] == 0).all() and (mask[:, :, 1, 2] == 0).all()


def test_the_mask_never_touches_the_weight():
    conv = MaskedConv2d(1, 2, 3)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 1, 4, 4)).sum().backward()
    assert torch.equal(conv.weight, before)
    assert (conv.weight.grad[conv.mask == 0] == 0).all() and (conv.weight.grad[conv.mask == 1] != 0).all()


def test_a_masked_convolution_is_causal_by_gradient():
    conv, x = MaskedConv2d(2, 3, 5, "B").double(), torch.randn(1, 2, 6, 7, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(conv(x)[0, :, 3, 3].sum(), x)
    seen = torch.zeros(6, 7, dtype=torch.bool)
    seen[1:3, 1:6] = seen[3, 1:4] = True
    assert ((slope[0] != 0) == seen).all()


@pytest.mark.parametrize(("kernel", "blocks"), [(3, 0), (3, 1), (5, 2), (3, 4), (7, 2)])
def test_what_a_pixel_sees_is_the_formula(kernel, blocks):
    torch.manual_seed(0)
    model = PixelCNN((1, 11, 15), 2, 16, blocks, kernel).double()
    for i, j in [(8, 7), (10, 14), (2, 0), (0, 0)]:
        measured = sees(model, i, j, images=32, generator=torch.Generator().manual_seed(1))[0] > 0
        assert torch.equal(measured, model.field(i, j))


def test_the_blind_spot():
    """With 3x3 kernels throughout, a right angle's half above and to the right: pixels before this one, yet unseen."""
    torch.manual_seed(0)
    model = PixelCNN((1, 7, 13), 2, 16, blocks=5, kernel=3).double()
    seen = sees(model, 6, 6, images=32, generator=torch.Generator().manual_seed(1))[0] > 0
    for up in range(1, 7):
        assert seen[6 - up, : 7 + up].all() and not seen[6 - up, 7 + up :].any()
    x = torch.zeros(1, 1, 7, 13, dtype=torch.long)
    blind = x.clone()
    blind[0, 0, 5, 8:] = blind[0, 0, 4, 9:] = 1
    assert torch.equal(model.logits(x)[0, 0, 6, 6], model.logits(blind)[0, 0, 6, 6])


def test_unknown_masks_are_refused():
    with pytest.raises(ValueError, match="odd"):
        MaskedConv2d(1, 1, (3, 2))
    with pytest.raises(ValueError, match="'C'"):
        MaskedConv2d(1, 1, 3, "C")
    with pytest.raises(ValueError, match="3 colours, got 3 and 4"):
        MaskedConv2d(3, 4, 3, "A", groups=3)
