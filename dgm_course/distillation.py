"""Probability density distillation: a student that samples fast learns from a teacher that judges densities.

References:
    Parallel WaveNet: Fast High-Fidelity Speech Synthesis, van den Oord et al., 2018, equations 4 to 8.
"""


def distillation_loss(student, teacher, n, context=None, generator=None):
    """KL(student || teacher) = H(student, teacher) - H(student) in nats, estimated with n samples of the student.

    The student's own density comes with its samples, in the same pass: log s(x) = log p(z) - log|det dx/dz|. So an IAF
    never runs its slow direction. The entropy of the base is known exactly and needs no samples. Gradients run through
    the samples; give the optimizer the student's parameters only.

    Args:
        student: a `Flow` whose transform inverts fast, e.g. `iaf`.
        teacher: any model with `log_prob(x)`, or `log_prob(x, context)` where there is a context.
        n: samples.
        context: `(n, context_dim)` or None.
        generator: for the samples.

    Returns:
        The KL divergence, a scalar, and its two parts, cross-entropy and entropy of the student.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    z = student.base.sample(n, generator)
    x, log_det = student.transform.inverse(z, context)
    cross_entropy = -(teacher.log_prob(x) if context is None else teacher.log_prob(x, context)).mean()
    entropy = student.base.entropy() + log_det.mean()
    return cross_entropy - entropy, cross_entropy, entropy
