"""Runs of recipes: train, judge on the test split, and leave weights and a model card behind.

A model card (`card.json`, and `card.md` to read) says what was trained on what, how long, where, and what came out,
each number with its unit. Tables of results are made from cards.

References:
    Model Cards for Model Reporting, Mitchell et al., 2019.
"""

import hashlib
import json
import os
import platform
import re
import statistics
from pathlib import Path

import torch
from safetensors.torch import save

from dgm_course import recipes, training


def label(name, seed=None):
    """Name of the run's folder and of its kept card: the recipe's name, and the seed if it is not the recipe's own."""
    return name if seed in (None, recipes.get(name).seed) else f"{name}.seed{seed}"


def run(name, steps=None, seed=None, out="runs", progress=True):
    """Follows a recipe at the budget of `training.budget()`; an interrupted run goes on where it was.

    Writes `model.safetensors`, `card.json` and `card.md` to `out/name/`, beside the checkpoint; with another seed than
    the recipe's to `out/name.seed1/`.

    Args:
        name: a name of `recipes.RECIPES`.
        steps, seed: other ones than the recipe's.
        out: folder of all runs.
        progress: show a bar.

    Returns:
        The model, in evaluation mode on the CPU, and its card (a dict).

    Raises:
        ValueError: unknown name, or the checkpoint is of a run with other settings.
    """
    recipe, budget = recipes.get(name), training.budget()
    seed = recipe.seed if seed is None else seed
    settings = recipe.at(budget) | ({} if steps is None else {"steps": steps})
    data, folder = recipe.data(), Path(out) / label(name, seed)
    data = data.first(256) if budget.name == "smoke" else data
    model = recipe.build(data, budget.name, seed)
    x, context = data.train if isinstance(data.train, tuple) else (data.train, None)

    def loss(model, x, *context):
        x = data.convention.prepare(x)
        return recipe.loss(model, x, *context) if recipe.loss else model.loss(x, *context)

    checkpoint = folder / f"{budget.name}.ckpt"
    history = recipe.fit(
        model, x, context=context, valid=data.valid, loss=loss, seed=seed, checkpoint=checkpoint, progress=progress,
        **settings, **recipe.options,
    )  # fmt: skip
    results = recipe.evaluate(model.to(budget.device), data)
    command = f"dgm train {name} --budget {budget.name} --seed {seed}" + (f" --steps {steps}" if steps else "")
    card = {
        "name": name, "table": recipe.table, "model": recipe.about if budget.name != "smoke" else "tiny, for a check",
        "parameters": sum(p.numel() for p in model.parameters()), "data": data.name,
        "convention": data.convention.name, "results": results, "budget": budget.name, "seed": seed,
        "steps": history.steps, "best_step": history.best_step, "batch_size": settings["batch_size"],
        "lr": settings["lr"], "options": recipe.options, "seconds": round(history.seconds, 1),
        "machine": machine(budget), "command": command,
    }  # fmt: skip
    return model.cpu(), write(folder / "model.safetensors", folder / "card.json", model, card)


def write(weights, file, model, card, dtype=torch.float32):
    """Writes weights and card (JSON and markdown); the card gets bytes and sha256 of the weights and is returned."""
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    content = save(state)
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    card = card | {"weights": {"bytes": len(content), "dtype": str(dtype)[6:], "sha256": digest}}
    file.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(card), encoding="utf-8")
    return card


def machine(budget):
    """What the run took place on, in words."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        models = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = models[0] if models else cpu
    gpu = f"{torch.cuda.get_device_name()}, " if budget.device.type == "cuda" else ""
    return f"{gpu}{cpu}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch {torch.__version__}"


def number(result, *more):
    """`2.413 ± 0.007`, marked as a bound or an estimate where it is one.

    With the same result of more seeds: mean, sample standard deviation over seeds, and `(3 seeds)`.
    """
    sign = {"exact": "", "lower bound": "<= ", "estimate": "about "}[result.get("kind", "exact")]
    value, error, seeds = result["value"], result.get("standard_error"), ""
    if more:
        values = [value, *(other["value"] for other in more)]
        value, error, seeds = statistics.mean(values), statistics.stdev(values), f" ({len(values)} seeds)"
    return f"{sign}{value:.3f}" + ("" if error is None else f" ± {error:.3f}") + seeds


def markdown(card):
    """The card as a page to read."""
    rows = {f"{name} (test)": f"{number(found)} {found['unit']}, {found['n']:,} examples"
            for name, found in card["results"].items()}  # fmt: skip
    best = f", best on the validation split after {card['best_step']:,}" if card["best_step"] else ""
    rows |= {
        "model": card["model"], "parameters": f"{card['parameters']:,}", "data": card["data"],
        "x of the model": card["convention"], "budget": card["budget"], "seed": card["seed"],
        "steps": f"{card['steps']:,}{best}", "batch size": card["batch_size"], "learning rate": card["lr"],
        "other settings": ", ".join(f"{key}={value}" for key, value in card["options"].items()) or "none",
        "time": f"{card['seconds']:,.0f} s", "machine": card["machine"], "command": f"`{card['command']}`",
        "weights": "{bytes:,} bytes, {dtype}, sha256 `{sha256}`".format(**card["weights"]),
    }  # fmt: skip
    lines = [f"# {card['name']}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines) + "\n\n± is one standard error of the mean over test examples.\n"


def cards(folder):
    """All cards below a folder (`NAME.json` or `NAME/card.json`), in the order of `RECIPES`, then of seeds."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).rglob("*.json"))]
    order = list(recipes.RECIPES)
    found = [card for card in found if card.get("name") in order]
    return sorted(found, key=lambda card: (order.index(card["name"]), card["seed"]))


def table(name, found):
    """The cards of the table `name` as markdown, one table for each data set.

    A row is a command: cards that differ in nothing but the seed share one, with mean and spread over seeds.

    Raises:
        ValueError: there is none.
    """
    found = [card for card in found if card["table"] == name]
    if not found:
        raise ValueError(f"no card of the table {name!r} is there; train something first (dgm train --list)")
    parts = []
    for data in dict.fromkeys((card["data"], card["convention"]) for card in found):
        rows = {}
        for card in found:
            if (card["data"], card["convention"]) == data:
                rows.setdefault(re.sub(r" --seed \S+", "", card["command"]), []).append(card)
        columns = {key: one["unit"] for (card, *_) in rows.values() for key, one in card["results"].items()}
        head = [f"{key}, {unit}" if key != unit else key for key, unit in columns.items()]
        head = ["recipe", *head, "parameters", "steps", "seed", "seconds"]
        parts += ["", f"**{data[0]}**; x: {data[1]}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        parts += [f"| {' | '.join(row(seeds, columns))} |" for seeds in rows.values()]
    return "\n".join(parts[1:]) + "\n"


def row(seeds, columns):
    """Cells of a row of the table: cards that differ in their seed, and which results to show."""

    def span(values):
        low, high = min(values), max(values)
        return f"{low:,}" + (f" to {high:,}" if high > low else "")

    results = [[card["results"][key] for card in seeds if key in card["results"]] for key in columns]
    best = [card["best_step"] for card in seeds if card["best_step"]]
    return [
        f"`{seeds[0]['name']}`", *(number(*same) if same else "" for same in results),
        f"{seeds[0]['parameters']:,}",
        span([card["steps"] for card in seeds]) + (f" (best {span(best)})" if best else ""),
        ", ".join(str(card["seed"]) for card in seeds), f"{statistics.mean(card['seconds'] for card in seeds):.0f}",
    ]  # fmt: skip


def insert(page, name, text):
    """The page with `text` between the markers of the table `name`.

    Raises:
        ValueError: the markers are not there, once each.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must hold {begin.strip()} and {end} once each, on lines of their own")
    return page[: page.index(begin) + len(begin)] + text + page[page.index(end) :]
