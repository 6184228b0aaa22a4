"""Lecture 03: wrong answers that must lose their cells, unusual right ones that must keep them all."""

from tests.grading.variants import right, wrong

# ---------------------------------------------------------------------------------------------------------- pixel_mask
wrong("pixel_mask", "A and B exchanged", swap=('kind == "A" else', 'kind == "B" else'))
wrong("pixel_mask", "inputs and outputs exchanged", swap=("come < to", "to < come"))
wrong("pixel_mask", "only what lies above and to the left", swap=("mask[:, :, :c] = 1", "mask[:, :, :c, : c + 1] = 1"))
wrong("pixel_mask", "columns before rows", swap=("    return mask", "    return mask.mT"))
wrong("pixel_mask", "own row forgotten", swap=("    mask[:, :, c, :c] = 1\n", ""))
wrong("pixel_mask", "one grey mask for all", source="""
def pixel_mask(kernel, kind, come, to):
    mask = torch.ones(kernel, kernel)
    mask[kernel // 2, kernel // 2 + (kind == "B") :] = 0
    mask[kernel // 2 + 1 :] = 0
    return mask.expand(len(to), len(come), kernel, kernel)
""")  # fmt: skip
wrong("pixel_mask", "colour from the channel's number", source="""
def pixel_mask(kernel, kind, come, to):
    if kernel % 2 == 0 or kind not in "AB":
        raise ValueError("bad arguments")
    mask, c = torch.zeros(len(to), len(come), kernel, kernel), kernel // 2
    mask[:, :, :c] = 1
    mask[:, :, c, :c] = 1
    for o in range(len(to)):
        for i in range(len(come)):
            mask[o, i, c, c] = i % 3 < o % 3 or (kind == "B" and i % 3 == o % 3)
    return mask
""")  # fmt: skip
wrong("pixel_mask", "even kernels pass", loses="hidden", swap=("if kernel % 2 == 0:", "if kernel < 1:"))
wrong("pixel_mask", "any kind passes", loses="hidden", swap=('if kind not in ("A", "B"):', "if not kind:"))
wrong("pixel_mask", "type B sees one colour more", swap=("(come <= to)", "(come <= to + (to > 0))"))
right("pixel_mask", "loops, a mask of bool", """
def pixel_mask(kernel, kind, come, to):
    if kind not in {"A", "B"} or not kernel % 2:
        raise ValueError(f"bad kernel or kind: {kernel}, {kind}")
    mask = torch.zeros(len(to), len(come), kernel, kernel, dtype=torch.bool)
    for o, later in enumerate(to):
        for i, earlier in enumerate(come):
            for place in range(kernel * kernel):
                middle = kernel * kernel // 2
                at_centre = place == middle and (earlier < later or (kind == "B" and earlier == later))
                mask[o, i, place // kernel, place % kernel] = place < middle or at_centre
    return mask
""")  # fmt: skip
right("pixel_mask", "numpy, flat", """
import numpy as np

def pixel_mask(kernel, kind, come, to):
    if kernel % 2 != 1:
        raise ValueError(kernel)
    limit = {"A": 0, "B": 1}.get(kind)
    if limit is None:
        raise ValueError(kind)
    flat = np.zeros((len(to), len(come), kernel**2))
    flat[..., : kernel**2 // 2] = 1
    flat[..., kernel**2 // 2] = np.subtract.outer(np.array(to) + limit, np.array(come)) > 0
    return flat.reshape(len(to), len(come), kernel, kernel)
""")  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- is_causal
wrong("is_causal", "always true", source="def is_causal(network, shape):\n    return True")
wrong("is_causal", "always false", source="def is_causal(network, shape):\n    return False")
wrong("is_causal", "the entry itself is allowed", swap=("number <= ", "number < "))
wrong("is_causal", "earlier entries are forbidden", swap=("number <= ", "number >= "))
wrong("is_causal", "True and False exchanged", swap=("return not bool(", "return bool("))
wrong("is_causal", "only the last entry is changed", source="""
def is_causal(network, shape):
    x = torch.rand(1, *shape)
    y = x.clone()
    y[0, -1, -1, -1] -= 1
    return bool((network(x) - network(y)).abs().max() < 1e-6)
""")  # fmt: skip
wrong("is_causal", "only what lies above and to the left may be seen", source="""
def is_causal(network, shape):
    c, h, w = shape
    x = 2 * torch.rand(1, *shape) - 1
    for i in range(h):
        for j in range(w):
            for k in range(c):
                y = x.clone()
                y[0, k, i, j] -= y[0, k, i, j].sign()
                moved = (network(x) - network(y)).abs()[0].amax(0) > 1e-6
                if moved[:i].any() or moved[:, :j].any() or moved[i, j]:
                    return False
    return True
""")  # fmt: skip
wrong("is_causal", "an image of zeros", loses="hidden", source="""
def is_causal(network, shape):
    c, h, w = shape
    n = c * h * w
    number = torch.arange(n).view(h, w, c).permute(2, 0, 1)
    x = torch.zeros(n + 1, *shape)
    for s in range(n):
        x[s][number == s] = 1.0
    out = network(x)
    return not any(bool(((out[s] - out[n]).abs() > 1e-6)[number <= s].any()) for s in range(n))
""")  # fmt: skip
wrong("is_causal", "channels before pixels", loses="hidden",
      swap=(".view(h, w, c).permute(2, 0, 1)", ".view(c, h, w)"))  # fmt: skip
wrong("is_causal", "a whole pixel at a time", loses="hidden", source="""
def is_causal(network, shape):
    c, h, w = shape
    x = 2 * torch.rand(1, *shape) - 1
    for s in range(h * w):
        y = x.clone()
        y[0, :, s // w, s % w] -= y[0, :, s // w, s % w].sign()
        moved = (network(x) - network(y)).abs()[0].flatten(1)
        if (moved[:, : s + (c == 1)] > 1e-6).any():
            return False
    return True
""")  # fmt: skip
wrong("is_causal", "no tolerance", swap=(".abs() > 1e-6", ".abs() > 0"))
wrong("is_causal", "square images", loses="hidden", source="""
def is_causal(network, shape):
    c, h, w = shape
    number = torch.arange(c * h * w).view(w, w, c).permute(2, 0, 1)
    image = 2 * torch.rand(shape) - 1
    for s in range(c * h * w):
        other = torch.where(number == s, image - image.sign(), image)
        out = network(torch.stack([image, other]))
        if bool((((out[0] - out[1]).abs() > 1e-6) & (number <= s)).any()):
            return False
    return True
""")  # fmt: skip
right("is_causal", "entry by entry, two calls each", """
def is_causal(network, shape):
    c, h, w = shape
    x = torch.randn(1, *shape, dtype=torch.float64).clamp(-1, 1)
    before = network(x)
    for i in range(h):
        for j in range(w):
            for k in range(c):
                y = x.clone()
                y[0, k, i, j] = -0.9 if y[0, k, i, j] > 0 else 0.9
                moved = (network(y) - before)[0].abs().permute(1, 2, 0).flatten()
                if moved[: (i * w + j) * c + k + 1].max() > 1e-5:
                    return False
    return True
""")  # fmt: skip
right("is_causal", "all later entries at once, a tensor", """
def is_causal(network, shape):
    c, h, w = shape
    n = c * h * w
    flat = torch.rand(2, n) * 2 - 1
    batch = torch.stack([torch.cat([flat[0, :s], flat[1, s:]]) for s in range(n)] + [flat[0]])
    out = network(batch.view(n + 1, h, w, c).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(n + 1, n)
    return torch.stack([(out[s, : s + 1] - out[n, : s + 1]).abs().max() < 1e-6 for s in range(n)]).all()
""")  # fmt: skip

# --------------------------------------------------------------------------------------------------------- gated_layer
wrong("gated_layer", "halves exchanged", swap=("a.tanh() * b.sigmoid()", "b.tanh() * a.sigmoid()"))
wrong("gated_layer", "link not moved down", swap=("F.pad(link(u), (0, 0, 1, 0))[:, :, :-1]", "link(u)"))
wrong("gated_layer", "link moved up", swap=("(0, 0, 1, 0))[:, :, :-1]", "(0, 0, 0, 1))[:, :, 1:]"))
wrong("gated_layer", "moved before link",
      swap=("F.pad(link(u), (0, 0, 1, 0))[:, :, :-1]", "link(F.pad(u, (0, 0, 1, 0))[:, :, :-1])"))  # fmt: skip
wrong("gated_layer", "no residual connection", swap=("h + out(", "out("))
wrong("gated_layer", "residual connection in both stacks", swap=("return gate(u), ", "return v + gate(u), "))
wrong("gated_layer", "the class for the vertical stack alone", swap=(" + shift_h[:, :, None, None]", ""))
wrong("gated_layer", "link of what has no shift", swap=("link(u)", "link(down(v))"))
wrong("gated_layer", "first row wraps round", swap=("F.pad(link(u), (0, 0, 1, 0))[:, :, :-1]", "link(u).roll(1, 2)"))
wrong("gated_layer", "two channels only", loses="hidden", swap=("x.chunk(2, dim=1)", "(x[:, :2], x[:, 2:4])"))
wrong("gated_layer", "tanh by exponentials", loses="hidden",
      swap=("a.tanh()", "((2 * a).float().exp() - 1) / ((2 * a).float().exp() + 1)"))  # fmt: skip
wrong("gated_layer", "the shift of the first example", loses="visible hidden",
      swap=("shift_v[:, :, None, None]", "shift_v[:1, :, None, None]"))  # fmt: skip
right("gated_layer", "F.glu and slices", """
def gated_layer(v, h, down, link, across, out, shift_v, shift_h):
    p = v.shape[1]
    u = down(v) + shift_v.unsqueeze(-1).unsqueeze(-1)
    total = across(h) + shift_h.unsqueeze(-1).unsqueeze(-1)
    total = torch.cat([total[:, :, :1], total[:, :, 1:] + link(u)[:, :, :-1]], dim=2)

    def gate(x):
        return F.glu(torch.cat([torch.tanh(x[:, :p]), x[:, p:]], 1), dim=1)

    return gate(u), out(gate(total)) + h
""")  # fmt: skip
right("gated_layer", "row by row", """
def gated_layer(v, h, down, link, across, out, shift_v, shift_h):
    def gate(x):
        a, b = torch.split(x, x.shape[1] // 2, dim=1)
        return torch.tanh(a) / (1 + torch.exp(-b))

    u = down(v) + shift_v[..., None, None]
    below, rows = link(u), []
    inside = across(h) + shift_h[..., None, None]
    for r in range(h.shape[2]):
        rows.append(inside[:, :, r] + (below[:, :, r - 1] if r else 0))
    return [gate(u), h + out(gate(torch.stack(rows, dim=2)))]
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------------- sample_images
wrong("sample_images", "columns before rows",
      swap=("for i in range(height):\n        for j in range(width):",
            "for j in range(width):\n        for i in range(height):"))  # fmt: skip
wrong("sample_images", "all pixels from one pass", swap=("predict(x, context)", "predict(0 * x, context)"))
wrong("sample_images", "the likeliest level", swap=("(p.cumsum(1) <= u[:, i, j, None]).sum(1)", "p.argmax(1)"))
wrong("sample_images", "one u for all pixels", swap=("u[:, i, j, None]", "u[:, 0, 0, None]"))
wrong("sample_images", "no class", swap=("predict(x, context)", "predict(x, 0 * context)"))
wrong("sample_images", "temperature forgotten", swap=(" / temperature", ""), loses="visible hidden")
wrong("sample_images", "temperature upside down", swap=(" / temperature", " * temperature"))
wrong("sample_images", "no softmax", swap=(".softmax(1)\n", ".sigmoid()\n"))
wrong("sample_images", "sum at least u", swap=("<= u", "< u"), loses="hidden")
wrong("sample_images", "no last level", swap=(".clamp(max=p.shape[1] - 1)", ""), loses="hidden")
wrong("sample_images", "three levels", swap=("p.shape[1] - 1", "2"), loses="hidden")
right("sample_images", "searchsorted, flat", """
def sample_images(predict, labels, u, temperature=1.0):
    n, height, width = u.shape
    x = torch.zeros(n, height * width).long()
    for t in range(height * width):
        logits = predict(x.view(n, height, width), torch.eye(10)[labels])
        p = torch.softmax(logits.flatten(2)[..., t] / temperature, dim=1)
        sums = p.cumsum(1)
        k = torch.searchsorted(sums, u.reshape(n, -1)[:, t : t + 1].to(sums.dtype), right=True)[:, 0]
        x[:, t] = torch.minimum(k, torch.tensor(p.shape[1] - 1))
    return x.view(n, height, width)
""")  # fmt: skip
right("sample_images", "one image and one level at a time, in floats", """
def sample_images(predict, labels, u, temperature=1.0):
    n, height, width = u.shape
    context = torch.zeros(n, 10)
    context[torch.arange(n), labels] = 1.0
    x = torch.zeros(n, height, width)
    for i in range(height):
        for j in range(width):
            probs = (predict(x.long(), context)[:, :, i, j] / temperature).softmax(1)
            for b in range(n):
                sums, k = probs[b].cumsum(0), 0
                while sums[k] <= u[b, i, j] and k < len(sums) - 1:
                    k += 1
                x[b, i, j] = k
    return x.int()
""")  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ complete
wrong("complete", "the likeliest level", swap=(
    "(log_p.exp().cumsum(1) <= u[:, i, j, None]).sum(1).clamp(max=log_p.shape[1] - 1)", "log_p.argmax(1)"
))  # fmt: skip
wrong(
    "complete",
    "log-probability of the likeliest level",
    swap=("log_p.gather(1, k[:, None]).squeeze(1)", "log_p.amax(1)"),
)
wrong("complete", "mask upside down", swap=("if mask[i, j]:", "if not mask[i, j]:"))
wrong("complete", "given pixels written at the end", source="""
def complete(step, known, mask, u):
    n, height, width = u.shape
    x, log_prob = torch.zeros(n, height, width, dtype=torch.long), torch.zeros(n)
    for i in range(height):
        for j in range(width):
            log_p = step(x, i, j).log_softmax(1)
            x[:, i, j] = (log_p.exp().cumsum(1) <= u[:, i, j, None]).sum(1).clamp(max=log_p.shape[1] - 1)
            if not mask[i, j]:
                log_prob = log_prob + log_p.gather(1, x[:, i, j, None]).squeeze(1)
    return torch.where(mask, known, x), log_prob
""")  # fmt: skip
wrong("complete", "sign of the log-probability", swap=("log_prob + log_p", "log_prob - log_p"))
wrong("complete", "the last pixel's log-probability", swap=("log_prob = log_prob + log_p", "log_prob = log_p"))
wrong("complete", "probabilities summed", swap=("log_prob + log_p.gather", "log_prob + log_p.exp().gather"))
wrong("complete", "one number for all images", swap=("return x, log_prob", "return x, log_prob.mean()"))
wrong(
    "complete", "logits taken as log-probabilities", swap=("log_prob + log_p.gather", "log_prob + step(x, i, j).gather")
)
wrong("complete", "given pixels count as drawn", source="""
def complete(step, known, mask, u):
    n, height, width = u.shape
    x, log_prob = torch.zeros(n, height, width, dtype=torch.long), torch.zeros(n)
    for i in range(height):
        for j in range(width):
            log_p = step(x, i, j).log_softmax(1)
            last = log_p.shape[1] - 1
            k = (log_p.exp().cumsum(1) <= u[:, i, j, None]).sum(1).clamp(max=last)
            x[:, i, j] = known[i, j] if mask[i, j] else k
            log_prob = log_prob + log_p.gather(1, x[:, i, j, None].clamp(max=last)).squeeze(1)
    return x, log_prob
""")  # fmt: skip
wrong("complete", "three levels", swap=("log_p.shape[1] - 1", "2"), loses="hidden")
wrong("complete", "no last level", loses="hidden", source="""
def complete(step, known, mask, u):
    n, height, width = u.shape
    x, log_prob = torch.zeros(n, height, width, dtype=torch.long), torch.zeros(n)
    for i in range(height):
        for j in range(width):
            p = step(x, i, j).softmax(1)
            k = (p.cumsum(1) <= u[:, i, j, None]).sum(1)
            x[:, i, j] = known[i, j] if mask[i, j] else k
            if not mask[i, j]:
                p = torch.cat([p, p[:, -1:]], dim=1)
                log_prob = log_prob + p.gather(1, k[:, None]).squeeze(1).log()
    return x, log_prob
""")  # fmt: skip
wrong("complete", "three columns", loses="hidden", source="""
def complete(step, known, mask, u):
    n = len(u)
    x, log_prob = torch.zeros_like(u).long(), torch.zeros(n)
    for t in range(u[0].numel()):
        i, j = t // 3, t % 3
        if mask[i, j]:
            x[:, i, j] = known[i, j]
        else:
            log_p = step(x, i, j).log_softmax(1)
            k = (log_p.exp().cumsum(1) <= u[:, i, j, None]).sum(1).clamp(max=log_p.shape[1] - 1)
            x[:, i, j] = k
            log_prob = log_prob + log_p.gather(1, k[:, None]).squeeze(1)
    return x, log_prob
""")  # fmt: skip
right("complete", "begins with the given pixels, a list of log-probabilities", """
def complete(step, known, mask, u):
    x = torch.where(mask, known, 0).expand(u.shape).clone()
    found = [torch.zeros(len(u), dtype=torch.float64)]
    for i, j in (~mask).nonzero().tolist():
        p = torch.softmax(step(x, i, j), dim=-1)
        k = torch.minimum((p.cumsum(1) <= u[:, i, j].unsqueeze(1)).sum(1), torch.tensor(p.shape[1] - 1))
        x[:, i, j] = k
        found.append(torch.log(p[torch.arange(len(u)), k]).double())
    return x, torch.stack(found).sum(0)
""")  # fmt: skip
right("complete", "one image at a time", """
def complete(step, known, mask, u):
    n, height, width = u.shape
    images, totals = [], []
    for b in range(n):
        x, total = torch.zeros(n, height, width, dtype=torch.long), 0.0
        for t in range(height * width):
            i, j = divmod(t, width)
            if mask[i, j]:
                x[b, i, j] = known[i, j]
                continue
            logits = step(x, i, j)[b]
            log_p = logits - logits.logsumexp(0)
            sums = log_p.exp().cumsum(0)
            k = next((k for k in range(len(sums)) if sums[k] > u[b, i, j]), len(sums) - 1)
            x[b, i, j] = k
            total += float(log_p[k])
        images.append(x[b])
        totals.append(total)
    return torch.stack(images), torch.tensor(totals)
""")  # fmt: skip
