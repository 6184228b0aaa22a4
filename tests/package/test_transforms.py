"""One property test over every transform. A new transform gets a row in TABLE, and all of these for nothing."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.autograd.functional import jacobian

from dgm_course import flows, transforms
from dgm_course.nn import MLP, MaskedMLP, ResidualConvNet
from dgm_course.transforms import (
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Compose,
    Continuous,
    ContractiveConvNet,
    ContractiveMLP,
    Coupling,
    Cubic,
    Inverse,
    InvertibleConv1x1,
    Logit,
    MaskedCoupling,
    MultiScale,
    Permute,
    Planar,
    PositiveNetwork,
    Radial,
    RationalQuadratic,
    Rescale,
    Residual,
    Sigmoidal,
    Squeeze,
    Standardize,
    SumOfSquares,
    Sylvester,
    VectorField,
    channel_mask,
    checkerboard_mask,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class Row:
    """A transform to test: how to make it, the shape of one example, and what inputs it takes.

    Attributes:
        unit: x lies in [0, 1] instead of on the whole line.
        widest: largest standard deviation of x at which float32 inverts well (float64: three times that). A stack of
            affine couplings needs it: where scales saturate, rounding grows by up to exp(bound) with every layer.
        wrong: shapes (with the batch) that must be refused.
        other: another instance that loads this one's state; None for `make` again.
    """

    name: str
    make: Callable
    shape: tuple
    context: int = 0
    unit: bool = False
    widest: float = 100.0
    wrong: tuple = ()
    other: Callable | None = None


def coupling(n, law, swap=False, context=0):
    kept, moved = (n // 2, n - n // 2) if swap else (n - n // 2, n // 2)
    return Coupling(n, MLP(kept, law.n_params * moved, (16, 16), context), law, swap)


def autoregressive(n, law, context=0, order=None):
    return Autoregressive(MaskedMLP(n, law.n_params, (16, 16), context, order, activation=torch.nn.Tanh), law)


def image_coupling(c, law, swap=False):
    return Coupling(c, ResidualConvNet(c // 2, law.n_params * (c // 2), 8, 1), law, swap)


def masked(mask, c, context=0):
    return MaskedCoupling(mask, ResidualConvNet(c, 2 * c, 8, 1, context))


def random_data(seed, *shape):
    return 3 * torch.randn(50, *shape, generator=torch.Generator().manual_seed(seed)) + 1


VECTOR = ((4,), (5, 3), (5, 5))  # refused where (batch, 4) is wanted
IMAGE = ((4,), (5, 4), (5, 2, 4), (5, 3, 5, 4))  # refused where (batch, 2, 4, 4) is wanted

TABLE = [
    Row("Permute", lambda: Permute([2, 0, 3, 1]), (4,), wrong=VECTOR, other=lambda: Permute([3, 2, 1, 0])),
    Row("Permute.parity", lambda: Permute.parity(5), (5,)),
    Row("Permute of channels", lambda: Permute([1, 2, 0]), (3, 2, 2), wrong=((5, 2, 2, 2), (3,))),
    Row("Rescale", lambda: Rescale(4), (4,), wrong=VECTOR),
    Row("Rescale with scale", lambda: Rescale(2, torch.tensor([0.1, 20.0])), (2,), wrong=((5, 3),)),
    Row(
        "Standardize",
        lambda: Standardize(random_data(0, 4)),
        (4,),
        wrong=VECTOR,
        other=lambda: Standardize(random_data(1, 4)),
    ),
    Row("Standardize image", lambda: Standardize(random_data(0, 2, 4, 4)), (2, 4, 4), wrong=IMAGE),
    Row("Additive coupling", lambda: coupling(4, Additive()), (4,), wrong=VECTOR),
    Row("Additive coupling, odd, swapped", lambda: coupling(5, Additive(), swap=True), (5,)),
    Row("Affine coupling", lambda: coupling(4, Affine()), (4,), wrong=VECTOR),
    Row("Affine coupling of two entries", lambda: coupling(2, Affine()), (2,)),
    Row("Affine coupling, odd, swapped", lambda: coupling(5, Affine(1.0), swap=True), (5,)),
    Row("Affine coupling, context", lambda: coupling(4, Affine(), context=3), (4,), context=3),
    Row("Affine coupling of channels", lambda: image_coupling(2, Affine()), (2, 4, 4), wrong=((4,), (5, 3, 4, 4))),
    Row("Masked coupling, checkerboard", lambda: masked(checkerboard_mask(4, 4), 2), (2, 4, 4), wrong=IMAGE),
    Row("Masked coupling, other squares", lambda: masked(checkerboard_mask(4, 2, swap=True), 1), (1, 4, 2)),
    Row("Masked coupling, channels", lambda: masked(channel_mask(2), 2), (2, 4, 4), wrong=((4,), (5, 3, 4, 4))),
    Row("Masked coupling, other channels", lambda: masked(channel_mask(3, swap=True), 3), (3, 2, 2)),
    Row("Masked coupling, context", lambda: masked(checkerboard_mask(4, 4), 2, 3), (2, 4, 4), context=3, wrong=IMAGE),
    Row("Masked coupling of a vector", lambda: MaskedCoupling([1, 0, 1, 0], MLP(4, 8, (16,))), (4,), wrong=VECTOR),
    Row("Logit", lambda: Logit(), (4,), unit=True),
    Row("Logit of an image", lambda: Logit(1e-3), (2, 4, 4), unit=True),
    Row("Squeeze", lambda: Squeeze(), (2, 4, 6), wrong=((4,), (5, 4), (5, 2, 3, 4), (5, 2, 4, 3))),
    Row("Compose", lambda: Compose(Rescale(3), coupling(3, Affine()), Permute([2, 0, 1])), (3,)),
    Row("Compose of nothing", lambda: Compose(), (3,)),
    Row("Inverse", lambda: Inverse(Compose(Rescale(4), coupling(4, Affine()))), (4,), wrong=VECTOR),
    Row("Inverse of Squeeze", lambda: Inverse(Squeeze()), (8, 1, 2), wrong=((5, 6, 2, 2), (5, 8))),
    Row(
        "MultiScale",
        lambda: MultiScale(
            (2, 4, 4),
            [Compose(masked(checkerboard_mask(4, 4), 2), Squeeze()), image_coupling(4, Affine()), Compose()],
        ),
        (2, 4, 4),
        wrong=IMAGE,
    ),
    Row("NICE", lambda: flows.nice(5, 4, (16,)).transform, (5,), wrong=((5, 4), (5,))),
    Row("NICE, context", lambda: flows.nice(4, 3, (16,), context_dim=2).transform, (4,), context=2, wrong=VECTOR),
    Row("RealNVP", lambda: flows.realnvp(4).transform, (4,), wrong=VECTOR, widest=10),
    Row("RealNVP, context", lambda: flows.realnvp(3, context_dim=2).transform, (3,), context=2, widest=10),
    Row(
        "RealNVP for images",
        lambda: flows.realnvp_image((1, 4, 4), 2, 8, 1).transform,
        (1, 4, 4),
        wrong=IMAGE,
        widest=10,
    ),
    Row(
        "RealNVP for images, three levels, context",
        lambda: flows.realnvp_image((1, 8, 4), 3, 8, 1, context_dim=2).transform,
        (1, 8, 4),
        context=2,
        widest=10,
    ),
    Row("Autoregressive affine", lambda: autoregressive(4, Affine(1.0)), (4,), wrong=VECTOR),
    Row("Autoregressive affine, order", lambda: autoregressive(3, Affine(1.0), order=[2, 0, 1]), (3,)),
    Row("Autoregressive affine, context", lambda: autoregressive(3, Affine(1.0), 2), (3,), context=2),
    Row("Autoregressive, one entry, context", lambda: autoregressive(1, Affine(), 2), (1,), context=2),
    Row("Spline coupling", lambda: coupling(5, RationalQuadratic()), (5,), wrong=((5, 4), (5,)), widest=10),
    Row("Spline coupling, context", lambda: coupling(4, RationalQuadratic(5, 3.0), True, 2), (4,), context=2),
    Row("Spline coupling of channels", lambda: image_coupling(2, RationalQuadratic(4)), (2, 4, 4), widest=3),
    Row("Spline autoregressive", lambda: autoregressive(4, RationalQuadratic()), (4,), wrong=VECTOR),
    Row("Cubic spline coupling", lambda: coupling(4, Cubic()), (4,), wrong=VECTOR),
    Row("Cubic spline autoregressive, context", lambda: autoregressive(3, Cubic(4, 2.0), 2), (3,), context=2),
    Row("Sigmoidal autoregressive", lambda: autoregressive(4, Sigmoidal()), (4,), wrong=VECTOR),
    Row("Sigmoidal coupling of channels", lambda: image_coupling(2, Sigmoidal(4)), (2, 2, 2), widest=3),
    Row("SOS autoregressive, context", lambda: autoregressive(3, SumOfSquares(), 2), (3,), context=2),
    Row("SOS coupling", lambda: coupling(4, SumOfSquares(2, 3)), (4,), wrong=VECTOR),
    Row("UMNN autoregressive, context", lambda: autoregressive(3, PositiveNetwork(4, 8, 64), 2), (3,), context=2),
    Row("MAF", lambda: flows.maf(4).transform, (4,), wrong=VECTOR, widest=10),
    Row("MAF, context", lambda: flows.maf(3, context_dim=2).transform, (3,), context=2, widest=10),
    Row("IAF", lambda: flows.iaf(4, 3).transform, (4,), wrong=VECTOR, widest=10),
    Row("Neural spline flow", lambda: flows.spline(4).transform, (4,), wrong=VECTOR, widest=3),
    Row("NAF", lambda: flows.naf(3).transform, (3,), widest=10),
    Row("SOS", lambda: flows.sos(3).transform, (3,), widest=10),
    Row("Planar", lambda: Planar(4), (4,), wrong=VECTOR),
    Row("Planar, context", lambda: Planar(3, context_dim=2), (3,), context=2),
    Row("Radial", lambda: Radial(4), (4,), wrong=VECTOR),
    Row("Radial, context", lambda: Radial(3, context_dim=2), (3,), context=2),
    Row("Sylvester, orthogonal", lambda: Sylvester(4, 2), (4,), wrong=VECTOR),
    Row("Sylvester, Householder, context", lambda: Sylvester(4, 3, "householder", context_dim=2), (4,), context=2),
    Row("Sylvester, triangular", lambda: Sylvester(4, 4, "triangular", flip=True), (4,), wrong=VECTOR),
    Row("Residual", lambda: Residual(ContractiveMLP(3, (8,))), (3,), wrong=((5, 4), (3,))),
    Row("Residual, context", lambda: Residual(ContractiveMLP(3, (8, 8), 0.9, 2)), (3,), context=2),
    Row("Residual, images", lambda: Residual(ContractiveConvNet(2, 4)), (2, 3, 3), wrong=((4,), (5, 4), (5, 3, 3, 3))),
    Row("Residual, images, context", lambda: Residual(ContractiveConvNet(1, 4, 0.9, 2)), (1, 3, 4), context=2),
    Row("Residual flow", lambda: flows.residual(2, 3, (8,), 0.9).transform, (2,)),
    Row("Continuous", lambda: Continuous(VectorField(3, (8,)), solver="rk4", steps=20), (3,), wrong=((5, 4), (3,))),
    Row(
        "Continuous, softplus, context",
        lambda: Continuous(VectorField(2, (8,), 2, torch.nn.Softplus), solver="rk4", steps=20),
        (2,),
        context=2,
    ),
    Row("FFJORD", lambda: flows.ffjord(2, (8,), atol=1e-11, rtol=1e-11, solver="dopri8").transform, (2,)),
    Row("ActNorm", lambda: ActNorm(2, data_init=False), (2, 4, 4), wrong=((4,), (5, 3, 4, 4))),
    Row("ActNorm of a vector", lambda: ActNorm(4, data_init=False), (4,), wrong=((4,), (5, 3))),
    Row(
        "Invertible 1x1 convolution",
        lambda: InvertibleConv1x1(3),
        (3, 2, 2),
        wrong=((4,), (5, 2, 2, 2)),
        other=lambda: InvertibleConv1x1(3),
    ),
    Row("Invertible 1x1 convolution, LU", lambda: InvertibleConv1x1(3, lu=True), (3, 2, 2), wrong=((4,), (5, 2))),
]
every_row = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def made(row, dtype=torch.float64, seed=0):
    """The row's transform with random parameters (layers start at zero, where much goes right by chance)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transform = row.make().to(dtype)
        with torch.no_grad():
            for parameter in transform.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return transform


def inputs(row, batch=5, dtype=torch.float64, scale=1.0, seed=0):
    """`(x, context)`; scale widens x where the domain allows it."""
    generator = torch.Generator().manual_seed(seed)
    scale = min(scale, row.widest * (1 if dtype == torch.float32 else 3))
    x = torch.randn(batch, *row.shape, generator=generator, dtype=dtype) * scale
    context = torch.randn(batch, row.context, generator=generator, dtype=dtype) if row.context else None
    return (torch.sigmoid(x) if row.unit else x), context


def close(got, want, tolerance):
    """Equal up to `tolerance` times the largest entry (or 1)."""
    got, want = got.detach(), want.detach()
    limit = tolerance * max(1.0, float(want.abs().max()))
    assert float((got - want).abs().max()) <= limit, f"off by {float((got - want).abs().max()):g}, limit {limit:g}"


def test_the_table_has_every_transform():
    seen = {type(module).__name__ for row in TABLE for module in row.make().modules()}
    classes = [getattr(transforms, name) for name in transforms.__all__]
    wanted = {c.__name__ for c in classes if isinstance(c, type) and issubclass(c, transforms.Transform)}
    assert wanted - {"Transform"} <= seen


@pytest.mark.parametrize("scale", [1.0, 3.0, 100.0, 1e-6], ids=["N(0,1)", "N(0,9)", "x100", "tiny"])
@every_row
def test_inverse_undoes_forward_and_forward_undoes_inverse(row, scale):
    transform, (x, context) = made(row), inputs(row, scale=scale)
    with torch.no_grad():
        z, log_det = transform(x, context)
        back, back_log_det = transform.inverse(z, context)
        again, again_log_det = transform(back, context)
        # A z that no x has made: a round trip alone can be remembered. (For x in [0, 1] not every z has an x.)
        other = z if row.unit else x.std() * torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(z)
        from_z, log_det_from_z = transform.inverse(other, context)
        to_z, log_det_to_z = transform(from_z, context)
    assert torch.isfinite(z).all() and torch.isfinite(log_det).all()
    close(back, x, 1e-9)
    close(again, z, 1e-9)
    close(to_z, other, 1e-9)
    for one, two in ((log_det, back_log_det), (again_log_det, back_log_det), (log_det_from_z, log_det_to_z)):
        close(one, -two, 1e-8)


@pytest.mark.parametrize("scale", [1.0, 3.0, 100.0], ids=["N(0,1)", "N(0,9)", "x100"])
@every_row
def test_float32_round_trip(row, scale):
    transform, (x, context) = made(row, torch.float32), inputs(row, 64, torch.float32, scale)
    with torch.no_grad():
        z, log_det = transform(x, context)
        back, back_log_det = transform.inverse(z, context)
    close(back, x, 1e-4)
    close(log_det, -back_log_det, 1e-4)


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["N(0,1)", "x100"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@every_row
def test_log_det_equals_that_of_the_jacobian(row, direction, scale):
    transform, (x, context) = made(row), inputs(row, batch=2, scale=min(scale, row.widest), seed=3)
    with torch.no_grad():
        inside = x if direction == "forward" else transform(x, context)[0]
    call = transform if direction == "forward" else transform.inverse
    log_det = call(inside, context)[1].detach()
    for i in range(len(x)):
        one = None if context is None else context[i : i + 1]
        matrix = jacobian(lambda v, one=one: call(v[None], one)[0].flatten(), inside[i])
        size = x[0].numel()
        expected = torch.linalg.slogdet(matrix.detach().reshape(size, size)).logabsdet
        assert abs(float(log_det[i] - expected)) < 1e-8 * max(1.0, abs(float(expected)))


@pytest.mark.parametrize("batch", [0, 1, 5, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@every_row
def test_shapes_and_dtypes(row, dtype, batch):
    transform, (x, context) = made(row, dtype), inputs(row, batch, dtype)
    z, log_det = transform(x, context)
    back, back_log_det = transform.inverse(z, context)
    assert z.shape[0] == batch and z.numel() == x.numel() and back.shape == x.shape
    assert log_det.shape == back_log_det.shape == (batch,)
    assert {z.dtype, log_det.dtype, back.dtype, back_log_det.dtype} == {dtype}


@every_row
def test_examples_do_not_see_one_another(row):
    transform, (x, context) = made(row), inputs(row)
    z, log_det = transform(x, context)
    for i in range(len(x)):
        alone, alone_log_det = transform(x[i : i + 1], None if context is None else context[i : i + 1])
        close(alone[0], z[i], 1e-12)
        close(alone_log_det, log_det[i : i + 1], 1e-12)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("row", [row for row in TABLE if [*row.make().parameters()]], ids=lambda row: row.name)
def test_gradients_reach_every_parameter(row, direction):
    transform, (x, context) = made(row), inputs(row, 64)
    with torch.no_grad():
        inside = x if direction == "forward" else transform(x, context)[0]
    y, log_det = (transform if direction == "forward" else transform.inverse)(inside, context)
    (torch.sin(y).sum() + log_det.sum()).backward()
    for name, parameter in transform.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


@every_row
def test_calls_change_nothing_and_repeat_themselves(row):
    transform, (x, context) = made(row), inputs(row)
    state, x_before, random = copy.deepcopy(transform.state_dict()), x.clone(), torch.get_rng_state()
    for mode in (True, False):
        transform.train(mode)
        z, log_det = transform(x, context)
        z_before = z.detach().clone()
        back, back_log_det = transform.inverse(z, context)
        assert torch.equal(x, x_before) and torch.equal(z, z_before), "an input was changed in place"
        for got, first in zip(transform(x, context), (z, log_det), strict=True):
            assert torch.equal(got, first)
        for got, first in zip(transform.inverse(z, context), (back, back_log_det), strict=True):
            assert torch.equal(got, first)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(state) == list(transform.state_dict())
    for name, value in transform.state_dict().items():
        assert torch.equal(value, state[name]), f"{name} was changed by a call"


@every_row
def test_no_stale_values_after_a_step(row):
    """What is computed from the parameters follows them, in both directions."""
    transform, (x, context) = made(row), inputs(row)
    with torch.no_grad():
        transform.inverse(transform(x, context)[0], context)
        for parameter in transform.parameters():
            parameter.mul_(1.1).add_(0.01)
        z, log_det = transform(x, context)
        back, back_log_det = transform.inverse(z, context)
        fresh = copy.deepcopy(transform)(x, context)
    close(back, x, 1e-6)
    close(log_det, -back_log_det, 1e-6)
    assert torch.equal(fresh[0], z) and torch.equal(fresh[1], log_det)


@every_row
def test_save_and_load(row):
    transform, (x, context) = made(row), inputs(row)
    file = io.BytesIO()
    torch.save(transform.state_dict(), file)
    file.seek(0)
    loaded = (row.other or row.make)().double()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for got, want in zip(loaded(x, context), transform(x, context), strict=True):
        assert torch.equal(got, want)
    z = transform(x, context)[0]
    for got, want in zip(loaded.inverse(z, context), transform.inverse(z, context), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("device", DEVICES)
@every_row
def test_moves_to_a_device_and_stays_there(row, device):
    transform, (x, context) = made(row), inputs(row)
    z, log_det = transform(x, context)
    there = copy.deepcopy(transform).to(device)
    moved = there(x.to(device), None if context is None else context.to(device))
    assert moved[0].device.type == moved[1].device.type == device
    close(moved[0].cpu(), z, 1e-9)
    close(moved[1].cpu(), log_det, 1e-9)
    back = there.inverse(moved[0], None if context is None else context.to(device))[0]
    close(back.cpu(), x, 1e-9)


@every_row
def test_wrong_shapes_say_what_was_wanted(row):
    transform, (x, context) = made(row), inputs(row)
    calls = [transform, transform.inverse] if transform(x, context)[0].shape == x.shape else [transform]
    for shape in ((), *row.wrong):
        for call in calls:
            with pytest.raises(ValueError, match=r"must (have shape \(batch|be even|be a multiple).*, got ") as error:
                call(torch.rand(shape, dtype=torch.float64), context)
            if "have shape" in str(error.value):
                assert f"got {shape}" in str(error.value)


@every_row
def test_integers_and_lists_are_refused(row):
    transform, (x, context) = made(row), inputs(row)
    z = transform(x, context)[0]
    for call, good in ((transform, x), (transform.inverse, z)):
        with pytest.raises(TypeError, match=r"must be a floating-point tensor, got dtype torch\.int64"):
            call(good.round().long(), context)
        with pytest.raises(TypeError, match="must be a floating-point tensor, got list"):
            call(good.tolist(), context)


@pytest.mark.parametrize("row", [row for row in TABLE if row.context], ids=lambda row: row.name)
def test_context_is_used_and_checked(row):
    transform, (x, context) = made(row), inputs(row)
    assert not torch.allclose(transform(x, context)[0], transform(x, context + 1)[0])
    with pytest.raises(ValueError, match=rf"needs a context of shape \(batch, {row.context}\), got none"):
        transform(x)
    for wrong in (context[:, :1], context[:2], context[0]):
        with pytest.raises(ValueError, match=rf"context must have shape \(5, {row.context}\), got"):
            transform.inverse(transform(x, context)[0], wrong)


def test_context_without_a_place_for_it_is_refused():
    with pytest.raises(ValueError, match="takes no context"):
        coupling(4, Affine())(torch.zeros(5, 4), context=torch.zeros(5, 1))


def test_settings_that_cannot_work_are_refused():
    for make, message in (
        (lambda: Permute([0, 0, 1]), r"permutation of 0 ... 2, got \[0, 0, 1\]"),
        (lambda: Coupling(1, None, Affine()), "at least two entries to split, got 1"),
        (lambda: MaskedCoupling([0.5, 1.0], None), "zeros and ones only"),
        (lambda: Logit(0.5), "between 0 and 0.5, got 0.5"),
        (lambda: Rescale(2, torch.tensor([1.0, 0.0])), r"positive and of shape \(2,\)"),
        (lambda: MultiScale((3, 4, 4), [Compose(), Compose()]), "even number of channels to split, got 3"),
        (lambda: flows.realnvp_image((1, 6, 6), levels=3), r"divisible by 4 for 3 levels, got \(6, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_logit_refuses_what_lies_outside():
    for wrong in (-0.1, 1.5, torch.nan):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            Logit()(torch.tensor([[0.5, wrong]]))
    z, log_det = Logit()(torch.tensor([[0.0, 1.0]]))
    assert torch.isfinite(z).all() and torch.isfinite(log_det).all(), "the ends belong to it"


def test_squeeze_order_as_written():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    z = Squeeze()(x)[0]
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5] and z[0, 0].tolist() == [[0, 2], [8, 10]]


def test_masks():
    assert checkerboard_mask(2, 3).tolist() == [[[1, 0, 1], [0, 1, 0]]]
    assert torch.equal(checkerboard_mask(2, 3) + checkerboard_mask(2, 3, swap=True), torch.ones(1, 2, 3))
    assert channel_mask(3).flatten().tolist() == [1, 1, 0] and channel_mask(3, swap=True).flatten().tolist() == [
        0,
        0,
        1,
    ]


def test_a_layer_starts_as_the_identity_and_keeps_its_half():
    x = inputs(TABLE[0])[0].float()
    assert torch.equal(coupling(4, Affine())(x)[0], x)
    row = Row("", lambda: coupling(4, Affine()), (4,))
    z = made(row, torch.float32)(x)[0]
    assert torch.equal(z[:, :2], x[:, :2]) and not torch.allclose(z[:, 2:], x[:, 2:])
    row = Row("", lambda: masked(checkerboard_mask(4, 4), 1), (1, 4, 4))
    x = inputs(row)[0]
    kept = checkerboard_mask(4, 4).bool().expand_as(x)
    z = made(row)(x)[0]
    assert torch.equal(z[kept], x[kept]) and (z[~kept] != x[~kept]).all()


def test_what_a_transform_lacks_it_says():
    class HalfWay(transforms.Transform):
        def forward(self, x, context=None):
            return x, x.new_zeros(len(x))

    with pytest.raises(TypeError, match="HalfWay does not define inverse"):
        HalfWay().inverse(torch.zeros(1, 1))
