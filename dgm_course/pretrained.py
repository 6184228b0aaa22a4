"""Pretrained weights that ship with the course, in `data/pretrained/`, each with its model card."""

import hashlib
import json

import torch
from safetensors.torch import load_file

from dgm_course import data, recipes, runs

LIMIT = 4_000_000  # bytes of one file of weights


def folder():
    """Where weights and cards are."""
    return data.folder() / "pretrained"


def names():
    """Names for `load`."""
    return sorted(path.stem for path in folder().glob("*.safetensors"))


def card(name):
    """The model card, a dict.

    Raises:
        ValueError: no weights of that name ship; the message lists those that do.
    """
    recipes.get(name)
    if name not in names():
        raise ValueError(f"no weights of {name!r} ship, only of {', '.join(names()) or 'none'}: dgm train {name}")
    return json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))


def load(name):
    """The model of a recipe with its pretrained weights, float32, in evaluation mode on the CPU.

    Raises:
        ValueError: unknown name; or a file of weights that is damaged, or that does not fit the recipe's model.
    """
    recipe, about, path = recipes.get(name), card(name), folder() / f"{name}.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["weights"]["sha256"]:
        raise ValueError(f"{path} is damaged: its sha256 is not that of the card; bring it again (git checkout)")
    model, state = recipe.build(recipe.data(), about["budget"]), load_file(path)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    got = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [key for key in {**wanted, **got} if wanted.get(key) != got.get(key)]
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"{path} does not fit the recipe {name}: {len(wrong)} entries differ, the first is {key}: "
            f"wanted shape {wanted.get(key)}, got {got.get(key)}"
        )
    model.load_state_dict(state)  # copies into the model's own dtype
    return model.eval()


def publish(name, out="runs", seed=None):
    """Copies weights and card of a run to `folder()`: as float32 where that is small enough, else as float16.

    The numbers of the card are taken anew, with the weights as they ship. A seed other than the recipe's names its run.

    Raises:
        FileNotFoundError: there is no finished run of that name below `out`.
        ValueError: the weights are too large even as float16.
    """
    recipe, source = recipes.get(name), runs.Path(out) / runs.label(name, seed)
    if not (source / "card.json").is_file():
        raise FileNotFoundError(f"{source} has no card.json: finish the run first (dgm train {name})")
    about = json.loads((source / "card.json").read_text(encoding="utf-8"))
    state, rows = load_file(source / "model.safetensors"), recipe.data()
    model = recipe.build(rows, about["budget"])
    size = sum(value.numel() * value.element_size() for value in state.values())
    dtype = torch.float32 if size < 0.99 * LIMIT else torch.float16
    model.load_state_dict({key: v.to(dtype) if v.is_floating_point() else v for key, v in state.items()})
    halves = sum(v.numel() * (2 if v.is_floating_point() else v.element_size()) for v in state.values())
    if dtype == torch.float16 and halves > 0.99 * LIMIT:
        raise ValueError(f"the weights of {name} take {halves:,} bytes as float16, at most {LIMIT:,} may ship")
    about["results"] = recipe.evaluate(model.eval(), rows)
    return runs.write(folder() / f"{name}.safetensors", folder() / f"{name}.json", model, about, dtype)
