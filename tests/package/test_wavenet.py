"""WaveNet: mu-law, causal convolutions, queues, contexts, and its part in distillation."""

import pytest
import torch
from torch.autograd.functional import jacobian

from dgm_course.autoregressive.wavenet import WaveNet, WaveNetConditioner, mu_law_decode, mu_law_encode
from dgm_course.distillation import distillation_loss
from dgm_course.distributions import StandardNormal
from dgm_course.flows import Flow, iaf
from dgm_course.nn import CausalConv1d, receptive_field
from dgm_course.transforms import Affine, Autoregressive, Inverse
from tests.package import sequence_properties as properties

OUTPUTS = ("softmax", "mixture", "logistic")
SMALL = dict(channels=4, skip=6, layers=3, stacks=2, components=2)


def make(output="softmax", levels=3, **options):
    return WaveNet(output, levels, **SMALL | options).double()


def sequence(model, n, length):
    if model.output == "logistic":
        return torch.rand(n, length, dtype=torch.float64) * 2 - 1
    return properties.random_sequence(model, n, length)


@pytest.mark.parametrize("levels", [16, 256, 65536])
def test_mu_law_comes_back_within_a_step_and_classes_come_back_exactly(levels):
    classes = torch.arange(levels)
    steps = mu_law_decode(classes, levels, torch.float64)
    assert (mu_law_encode(steps, levels) == classes).all()
    assert (mu_law_encode(mu_law_decode(classes, levels), levels) == classes).all(), "float32"
    x = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    widest = steps.diff()[torch.searchsorted(steps, x).clamp(1, levels - 1) - 1]
    error = (mu_law_decode(mu_law_encode(x, levels), levels, torch.float64) - x).abs()
    assert (error <= widest + 1e-12).all() and error[4900:5101].max() < error.max() / 10


def test_mu_law_values_of_the_formula():
    assert mu_law_encode(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]
    assert mu_law_decode(torch.tensor([0, 255])).tolist() == pytest.approx([-1, 1])
    bent = torch.log(torch.tensor(1 + 255 * 0.1)) / torch.log(torch.tensor(256.0))
    assert mu_law_encode(torch.tensor([0.1])).item() == round(((bent + 1) / 2 * 255).item())
    with pytest.raises(ValueError, match=r"x must lie in \[-1, 1\], got values from -0.5 to 1.5"):
        mu_law_encode(torch.tensor([-0.5, 1.5]))


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (2, 4), (3, 2)])
def test_causal_convolution_sees_the_present_and_the_past_at_its_distance(kernel, dilation):
    conv = CausalConv1d(1, 1, kernel, dilation).double()
    with torch.no_grad():
        conv.weight.uniform_(1, 2)
    x = torch.randn(1, 1, 12, dtype=torch.float64)
    seen = jacobian(conv, x)[0, 0, :, 0, 0] != 0
    lag = torch.arange(12)[:, None] - torch.arange(12)
    assert (seen == ((lag >= 0) & (lag % dilation == 0) & (lag < kernel * dilation))).all()
    queue = conv.queue(1)
    steps = torch.cat([conv(x[:, :, t : t + 1], queue) for t in range(12)], dim=2)
    torch.testing.assert_close(steps, conv(x), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="with a queue one step is taken at a time, got 2"):
        conv(x[:, :, :2], queue)


@pytest.mark.parametrize(("layers", "stacks", "kernel"), [(1, 1, 2), (3, 1, 2), (3, 2, 2), (2, 2, 3)])
def test_receptive_field_is_the_formula(layers, stacks, kernel):
    model = make(layers=layers, stacks=stacks, kernel=kernel)
    wanted = receptive_field(kernel, [1, *[2**i for i in range(layers)] * stacks])
    assert model.reach == wanted
    seen = properties.seen(model, properties.random_sequence(model, 2, wanted + 5))
    assert seen.nonzero()[:, 0].tolist() == list(range(5, wanted + 5)), "all of the field, and nothing before it"


def test_receptive_field_of_the_paper():
    """Dilations 1, 2, ..., 512 with filter width 2 see 1024 inputs (section 2.1)."""
    assert receptive_field(2, [2**i for i in range(10)]) == 1024
    assert receptive_field(2, [1, 2, 4, 8]) == 16


@pytest.mark.parametrize("options", [{}, {"context_dim": 2, "local_dim": 3}], ids=["plain", "contexts"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_entry_depends_on_earlier_ones_alone_and_parallel_is_sequential(output, options):
    model = make(output, **options)
    x = sequence(model, 2, 7)
    properties.check_causal(model, x, lambda v: -v + 0.1 if output == "logistic" else (v + 1) % model.levels)
    properties.check_sequential(model, x)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_sequence_may_be_shorter_than_the_receptive_field(output):
    model = make(output, context_dim=2, local_dim=3)
    properties.check_short(model, sequence(model, 3, model.reach + 3))


@pytest.mark.parametrize("output", ["softmax", "mixture"])
@pytest.mark.parametrize("options", [{}, {"context_dim": 2, "local_dim": 3}], ids=["plain", "contexts"])
def test_probabilities_of_all_sequences_sum_to_one(output, options):
    properties.check_normalized(make(output, **options), 5)


@torch.no_grad()
def test_density_of_real_values_integrates_to_one():
    model, axis = make("logistic"), torch.linspace(-100, 100, 2001, dtype=torch.float64)
    assert torch.trapezoid(model.log_prob(axis[:, None]).exp(), axis).item() == pytest.approx(1, abs=1e-6)
    for first in (-1.0, 0.5):
        x = torch.stack([torch.full_like(axis, first), axis], dim=1)
        marginal = torch.trapezoid(model.log_prob(x).exp(), axis).log()
        torch.testing.assert_close(marginal, model.log_prob(x[:1, :1])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kernel": 3}, {"context_dim": 2, "local_dim": 3}])
@pytest.mark.parametrize("output", OUTPUTS)
def test_cached_samples_are_the_naive_ones(output, options):
    model = make(output, **options)
    properties.check_cached(model, 24, sequence(model, 3, 5))


def test_each_context_bears_where_it_should():
    model = make(context_dim=2, local_dim=3)
    x, given = properties.random_sequence(model, 1, 8), properties.contexts(model, 1, 8)
    context, local = (given[k].requires_grad_() for k in ("context", "local"))
    params = properties.outputs(model, x, **given)
    grads = [torch.autograd.grad(params[:, t].sum(), [context, local], retain_graph=True) for t in range(8)]
    assert all(g[0].abs().min() > 0 for g in grads), "the global context bears on every entry"
    reach = torch.stack([g[1].abs().sum((0, 1)) > 0 for g in grads])
    assert (reach == torch.ones(8, 8).tril().bool()).all(), "a local one on its own time and, through layers, later"
    with pytest.raises(ValueError, match=r"local must have shape \(1, 3, 8\), got \(1, 3, 7\)"):
        model.log_prob(x, context, local[:, :, :7])
    with pytest.raises(ValueError, match=r"takes local of shape \(batch, 3, length\), got None"):
        model.log_prob(x, context)
    with pytest.raises(ValueError, match=r"needs a context of shape \(batch, 2\), got none"):
        model.sample(1, 8, local=local)


def test_samples_come_as_often_as_log_prob_says():
    properties.check_sampled_frequencies(make())


@pytest.mark.parametrize("device", properties.DEVICES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_float32_on_every_device(output, device):
    properties.check_device(make(output, context_dim=2, local_dim=3).float(), device)


def test_it_learns_and_continues_a_periodic_sequence():
    properties.check_learns(WaveNet(levels=3, channels=8, skip=16, layers=3, stacks=1))


def test_bad_input_is_refused():
    properties.check_bad_input(make())
    with pytest.raises(ValueError, match="output must be softmax, mixture or logistic, got 'gauss'"):
        WaveNet("gauss")
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        WaveNet(levels=1)
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got dtype"):
        make("logistic").log_prob(torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="x has 1 entries that are NaN or infinite"):
        make("logistic").log_prob(torch.tensor([[0.1, torch.nan]]).double())


def student(length, **options):
    """The student of Parallel WaveNet: an IAF whose network is a small WaveNet."""
    net = WaveNetConditioner(length, channels=4, skip=4, layers=2, stacks=1, **options)
    return Flow(StandardNormal((length,)), Inverse(Autoregressive(net, Affine())))


def test_wavenet_as_the_network_of_a_flow():
    flow = student(6, context_dim=2).double()
    with torch.no_grad():
        flow.transform.transform.net.net.head[-1].weight.normal_()
    z, context = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    x, log_det = flow.transform.inverse(z, context)
    full = jacobian(lambda v: flow.transform.inverse(v, context)[0].sum(0), z).permute(1, 0, 2)
    assert (full.triu(1) == 0).all() and (full.tril(-1) != 0).any()
    torch.testing.assert_close(log_det, torch.linalg.slogdet(full)[1])
    for again, its_log_det in (flow.transform(x, context), no_grad(flow.transform, x, context)):
        torch.testing.assert_close(again, z)
        torch.testing.assert_close(its_log_det, -log_det)


@torch.no_grad()
def no_grad(function, *args):
    return function(*args)


@pytest.mark.parametrize("make_student", [lambda: iaf(4, 1, (8,)), lambda: student(4)], ids=["MADE", "WaveNet"])
def test_distillation_brings_a_student_near_its_teacher(make_student):
    """The gradient reaches the student through the samples that the teacher judges."""
    teacher = WaveNet("logistic", **SMALL)
    pupil, generator = make_student(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(pupil.parameters(), lr=0.02)
    before = distillation_loss(pupil, teacher, 2000, generator=generator)[0].item()
    for _ in range(60):
        optimizer.zero_grad()
        distillation_loss(pupil, teacher, 64, generator=generator)[0].backward()
        optimizer.step()
    assert 0 <= distillation_loss(pupil, teacher, 2000, generator=generator)[0].item() < 0.5 * before
