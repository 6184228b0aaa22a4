"""Lecture 12: wrong answers that must lose their cells, unusual right ones that must keep them all."""

from tests.grading.variants import right, wrong

# --------------------------------------------------------------------------------------------------------- gaussian_kl
wrong("gaussian_kl", "prior ignored", swap=(
    "(log_var.exp() + (mean - prior_mean) ** 2) / prior_log_var.exp()\n    return 0.5 * (prior_log_var - log_var",
    "log_var.exp() + mean**2\n    return 0.5 * (-log_var",
))  # fmt: skip
wrong("gaussian_kl", "log of the standard deviation", swap=("spread = (log_var.exp()", "spread = ((2 * log_var).exp()"))
wrong("gaussian_kl", "no half", swap=("0.5 * (prior_log_var", "(prior_log_var"))
wrong("gaussian_kl", "mean over the entries", swap=(".sum(1)", ".mean(1)"))
wrong("gaussian_kl", "summed over everything", swap=(".sum(1)", ".sum()"))
wrong("gaussian_kl", "variance of the prior not under the square", swap=(
    "(log_var.exp() + (mean - prior_mean) ** 2) / prior_log_var.exp()",
    "log_var.exp() / prior_log_var.exp() + (mean - prior_mean) ** 2",
))  # fmt: skip
wrong("gaussian_kl", "turned round", source="""
def gaussian_kl(mean, log_var, prior_mean, prior_log_var):
    spread = (prior_log_var.exp() + (mean - prior_mean) ** 2) / log_var.exp()
    return 0.5 * (log_var - prior_log_var + spread - 1).sum(1)
""")  # fmt: skip
wrong("gaussian_kl", "axes of length one vanish", loses="hidden", swap=(
    "return 0.5 * (prior_log_var - log_var + spread - 1).sum(1)",
    "return 0.5 * (prior_log_var - log_var + spread - 1).squeeze().sum(-1)",
))  # fmt: skip
wrong("gaussian_kl", "computed in float32", loses="hidden", swap=(
    "spread = (log_var.exp()", "mean, log_var = mean.float(), log_var.float()\n    spread = (log_var.exp()"
))  # fmt: skip
wrong("gaussian_kl", "variances clamped", loses="hidden", swap=("(log_var.exp() +", "(log_var.clamp(-10, 10).exp() +"))
right("gaussian_kl", "torch.distributions", """
def gaussian_kl(mean, log_var, prior_mean, prior_log_var):
    q = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    p = torch.distributions.Normal(prior_mean.expand_as(mean), (0.5 * prior_log_var).exp().expand_as(mean))
    return torch.distributions.kl_divergence(q, p).sum(-1)
""")  # fmt: skip
right("gaussian_kl", "entry by entry", """
def gaussian_kl(mean, log_var, prior_mean, prior_log_var):
    total = torch.zeros_like(mean[:, 0])
    for j in range(mean.shape[1]):
        gap, difference = mean[:, j] - prior_mean[j], log_var[:, j] - prior_log_var[j]
        total = total + (gap**2 * torch.exp(-prior_log_var[j]) + torch.expm1(difference) - difference) / 2
    return total
""")  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- elbo
wrong("elbo", "noise times the variance", swap=("(0.5 * log_var).exp() * eps", "log_var.exp() * eps"))
wrong("elbo", "KL divergence added", swap=("log_likelihood.mean(0) - kl", "log_likelihood.mean(0) + kl"))
wrong("elbo", "no KL divergence", swap=("log_likelihood.mean(0) - kl", "log_likelihood.mean(0)"))
wrong("elbo", "the loss", swap=("log_likelihood.mean(0) - kl", "kl - log_likelihood.mean(0)"))
wrong("elbo", "mean over the pixels", swap=("(logits)).sum(2)", "(logits)).mean(2)"))
wrong("elbo", "sum over the samples", swap=("log_likelihood.mean(0)", "log_likelihood.sum(0)"))
wrong("elbo", "decodes the mean", swap=("z = mean + (0.5 * log_var).exp() * eps", "z = mean.expand_as(eps)"))
wrong("elbo", "samples are detached", swap=("decoder(z.flatten(0, 1))", "decoder(z.detach().flatten(0, 1))"))
wrong("elbo", "means and log-variances exchanged", swap=("mean, log_var = params", "log_var, mean = params"))
wrong("elbo", "estimates the KL divergence", swap=(
    "kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(1)",
    "kl = 0.5 * (z**2 - eps**2 - log_var).sum(2).mean(0)",
))  # fmt: skip
wrong("elbo", "sigmoid, then logarithm", loses="hidden", swap=(
    "(x * logits - torch.nn.functional.softplus(logits))",
    "(x * torch.sigmoid(logits).log() + (1 - x) * (1 - torch.sigmoid(logits)).log())",
))  # fmt: skip
wrong("elbo", "gradient of the mean only", loses="visible hidden",
      swap=("(0.5 * log_var).exp() * eps", "(0.5 * log_var).exp().detach() * eps"))  # fmt: skip
wrong("elbo", "noise of the first four samples only", loses="hidden", swap=("* eps", "* eps[:4]"))
wrong("elbo", "probabilities clamped", loses="hidden", swap=(
    "(x * logits - torch.nn.functional.softplus(logits))",
    "torch.distributions.Bernoulli(torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)).log_prob(x)",
))  # fmt: skip
right("elbo", "one sample at a time, cross-entropy", """
def elbo(params, x, eps, decoder):
    m = params.shape[1] // 2
    mean, deviation = params[:, :m], torch.exp(params[:, m:] / 2)
    kl = (deviation**2 + mean**2 - 1) / 2 - torch.log(deviation)
    total = 0
    for noise in eps:
        logits = decoder(mean + deviation * noise)
        cost = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        total = total - cost.sum(-1)
    return total / len(eps) - kl.sum(-1)
""")  # fmt: skip
right("elbo", "torch.distributions", """
def elbo(params, x, eps, decoder):
    mean, log_var = torch.tensor_split(params, 2, dim=1)
    q = torch.distributions.Normal(mean, log_var.mul(0.5).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    z = (q.loc + q.scale * eps).reshape(-1, mean.shape[1])
    pixels = torch.distributions.Bernoulli(logits=decoder(z)).log_prob(x.repeat(len(eps), 1))
    reconstruction = pixels.sum(1).reshape(len(eps), -1).mean(0)
    return reconstruction - torch.distributions.kl_divergence(q, p).sum(1)
""")  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- iwae
wrong("iwae", "mean of the logarithms", swap=("log_w.logsumexp(0) - math.log(len(log_w))", "log_w.mean(0)"))
wrong("iwae", "sum of the weights", swap=(" - math.log(len(log_w))", ""))
wrong("iwae", "log q added", swap=("log_prior - log_q", "log_prior + log_q"))
wrong("iwae", "prior forgotten", swap=("log_likelihood + log_prior - log_q", "log_likelihood - log_q"))
wrong("iwae", "over the batch", swap=("log_w.logsumexp(0) - math.log(len(log_w))",
                                      "log_w.logsumexp(1) - math.log(log_w.shape[1])"))  # fmt: skip
wrong("iwae", "largest weight", swap=("log_w.logsumexp(0) - math.log(len(log_w))", "log_w.amax(0)"))
wrong("iwae", "exp without care", loses="hidden", swap=("log_w.logsumexp(0) - math.log(len(log_w))",
                                                        "log_w.exp().mean(0).log()"))  # fmt: skip
wrong("iwae", "shifted by one number for all examples", loses="hidden", swap=(
    "log_w.logsumexp(0) - math.log(len(log_w))", "(log_w - log_w.max()).exp().mean(0).log() + log_w.max()"
))  # fmt: skip
wrong("iwae", "weights of zero are not counted", loses="hidden", swap=(
    "math.log(len(log_w))", "torch.isfinite(log_w).sum(0).log()"
))  # fmt: skip
right("iwae", "shifted by hand", """
def iwae(log_likelihood, log_prior, log_q):
    log_w = log_likelihood - (log_q - log_prior)
    top = log_w.max(0).values
    return top + torch.log(torch.mean(torch.exp(log_w - top), 0))
""")  # fmt: skip
right("iwae", "logaddexp, one sample after the other", """
def iwae(log_likelihood, log_prior, log_q):
    total = None
    for a, b, c in zip(log_likelihood, log_prior, log_q):
        total = a + b - c if total is None else torch.logaddexp(total, a + b - c)
    return total - math.log(log_q.shape[0])
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------- aggregated_log_prob
wrong("aggregated_log_prob", "mean of the logarithms", swap=("each.logsumexp(1) - math.log(len(mean))", "each.mean(1)"))
wrong("aggregated_log_prob", "sum of the densities", swap=(" - math.log(len(mean))", ""))
wrong("aggregated_log_prob", "standard deviation for variance", swap=("/ log_var.exp()", "/ (0.5 * log_var).exp()"))
wrong("aggregated_log_prob", "no log-variance", swap=("square + log_var + math", "square + math"))
wrong("aggregated_log_prob", "no constant", swap=(" + math.log(2 * math.pi)", ""))
wrong("aggregated_log_prob", "divided by the wrong number", swap=("len(mean)", "len(z)"))
wrong("aggregated_log_prob", "entries mixed one by one", swap=(
    ".sum(2)\n    return each.logsumexp(1) - math.log(len(mean))",
    "\n    return (each.logsumexp(1) - math.log(len(mean))).sum(1)",
))  # fmt: skip
wrong("aggregated_log_prob", "exp without care", loses="hidden", swap=(
    "each.logsumexp(1) - math.log(len(mean))", "each.exp().mean(1).log()"
))  # fmt: skip
wrong("aggregated_log_prob", "a floor under the density", loses="hidden", swap=(
    "each.logsumexp(1) - math.log(len(mean))", "(each.exp().mean(1) + 1e-30).log()"
))  # fmt: skip
wrong("aggregated_log_prob", "the constant of two entries", loses="hidden", swap=(
    "+ math.log(2 * math.pi)).sum(2)", ").sum(2) - math.log(2 * math.pi)"
))  # fmt: skip
right("aggregated_log_prob", "MixtureSameFamily", """
def aggregated_log_prob(z, mean, log_var):
    parts = torch.distributions.Independent(torch.distributions.Normal(mean, (log_var / 2).exp()), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros_like(mean[:, 0]))
    return torch.distributions.MixtureSameFamily(weights, parts).log_prob(z)
""")  # fmt: skip
right("aggregated_log_prob", "one Gaussian after the other", """
def aggregated_log_prob(z, mean, log_var):
    total = None
    for m, v in zip(mean, log_var):
        one = -0.5 * (((z - m) ** 2 * torch.exp(-v)).sum(1) + v.sum() + len(m) * math.log(2 * math.pi))
        total = one if total is None else torch.logaddexp(total, one)
    return total - math.log(mean.shape[0])
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- surgery
wrong("surgery", "sign of the mutual information", swap=("table.diagonal() - log_agg", "log_agg - table.diagonal()"))
wrong("surgery", "KL divergence to the prior", swap=("table.diagonal() - log_agg", "table.diagonal() - log_prior(z)"))
wrong("surgery", "no 1/n", swap=(" - math.log(len(z))", ""))
wrong("surgery", "sums instead of means", swap=("(log_agg - log_prior(z)).mean()", "(log_agg - log_prior(z)).sum()"))
wrong("surgery", "wrong axis", swap=("table.logsumexp(1)", "table.logsumexp(0)"))
wrong("surgery", "all pairs", swap=("(table.diagonal() - log_agg)", "(table - log_agg[:, None])"))
wrong("surgery", "prior at the means", swap=("log_prior(z)", "log_prior(mean)"))
wrong("surgery", "a point is left out of its own q_agg", swap=(
    "log_agg = table.logsumexp(1) - math.log(len(z))",
    "log_agg = (table - 1e9 * torch.eye(len(z))).logsumexp(1) - math.log(len(z) - 1)",
))  # fmt: skip
wrong("surgery", "parts exchanged", swap=(
    "(table.diagonal() - log_agg).mean(), (log_agg - log_prior(z)).mean()",
    "(log_agg - log_prior(z)).mean(), (table.diagonal() - log_agg).mean()",
))  # fmt: skip
wrong("surgery", "exp without care", loses="hidden", swap=(
    "table.logsumexp(1) - math.log(len(z))", "table.exp().mean(1).log()"
))  # fmt: skip
wrong("surgery", "a floor under the density", loses="hidden", swap=(
    "log_agg = table.logsumexp(1) - math.log(len(z))",
    "table = table.clamp(min=-60)\n    log_agg = table.logsumexp(1) - math.log(len(z))",
))  # fmt: skip
wrong("surgery", "three points only", loses="hidden", swap=(
    "table.logsumexp(1) - math.log(len(z))", "table[:, :3].logsumexp(1) - math.log(3)"
))  # fmt: skip
right("surgery", "row by row", """
def surgery(z, mean, log_var, log_prior):
    q = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
    rows = [q.log_prob(point).sum(1) for point in z]
    n = len(rows)
    agg = torch.stack([torch.logsumexp(row - math.log(n), 0) for row in rows])
    own = torch.stack([rows[i][i] for i in range(n)])
    return torch.mean(own) - torch.mean(agg), torch.mean(agg) - torch.mean(log_prior(z))
""")  # fmt: skip
right("surgery", "marginal part as total less information", """
def surgery(z, mean, log_var, log_prior):
    each = -0.5 * ((z.unsqueeze(1) - mean.unsqueeze(0)) ** 2 * (-log_var).exp() + log_var + math.log(2 * math.pi))
    log_q = torch.diag(each.sum(-1))
    info = -torch.mean(torch.logsumexp(each.sum(-1) - log_q[:, None], dim=1)) + math.log(z.shape[0])
    return info, (log_q - log_prior(z)).mean() - info
""")  # fmt: skip
