"""Recipes, runs, model cards, tables and pretrained weights."""

import inspect
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from autograder import train_cli
from dgm_course import data, flows, metrics, pretrained, recipe, recipes, runs


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty `data/pretrained/`."""
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path / "pretrained")
    return tmp_path / "pretrained"


SHIPPED = [name for name in recipes.RECIPES if not name.endswith("-frey")]  # Frey Faces do not ship


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_trains(name, tmp_path):
    model, card = runs.run(name, steps=2, out=tmp_path, progress=False)
    for found in card["results"].values():
        assert math.isfinite(found["value"]) and found["unit"] in ("nats", "bits/dim", "%", "1e-3", "p-value")
    if card["table"] == "flows":  # others may need a length or a class
        x = model.sample(2, generator=torch.Generator().manual_seed(0))
        assert x.shape == (2, *recipes.get(name).data().train.shape[1:])


def test_every_named_flow_has_a_recipe():
    public = [make for name, make in inspect.getmembers(flows, inspect.isfunction) if not name.startswith("_")]
    named = {make.__name__ for make in public if next(iter(inspect.signature(make).parameters)) in ("dim", "shape")}
    used = {make.__name__ for make, *_ in recipes.FLOWS.values()} | {"glow", "realnvp_image"}
    assert named == used


@pytest.mark.parametrize("name", ["glow-fashion", "realnvp-moons"])
def test_interrupted_and_resumed_is_as_if_never_interrupted(name, tmp_path, monkeypatch):
    whole, card = runs.run(name, steps=6, out=tmp_path / "whole", progress=False)
    calls, build = [], recipes.Recipe.build

    class Killed(Exception):
        pass

    def breaks(recipe, *args):
        model = build(recipe, *args)
        loss = model.loss

        def counted(x):
            calls.extend([1] if model.training else [])
            if len(calls) > 4:
                raise Killed
            return loss(x)

        model.loss = counted
        return model

    with monkeypatch.context() as patch:
        patch.setattr(recipes.Recipe, "build", breaks)
        with pytest.raises(Killed):
            runs.run(name, steps=6, out=tmp_path / "parts", progress=False)
    assert not (tmp_path / "parts" / name / "card.json").exists()
    resumed, again = runs.run(name, steps=6, out=tmp_path / "parts", progress=False)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert again["results"] == card["results"]
    assert again["weights"] == card["weights"]


def test_seed_and_steps_change_the_run_and_stand_in_the_card(tmp_path):
    one = runs.run("nice-moons", steps=2, seed=1, out=tmp_path / "1", progress=False)[1]
    two = runs.run("nice-moons", steps=2, seed=2, out=tmp_path / "2", progress=False)[1]
    same = runs.run("nice-moons", steps=2, seed=1, out=tmp_path / "3", progress=False)[1]
    assert one["command"] == "dgm train nice-moons --budget smoke --seed 1 --steps 2"
    assert (one["seed"], one["steps"], two["seed"]) == (1, 2, 2)
    assert one["weights"]["sha256"] == same["weights"]["sha256"] != two["weights"]["sha256"]


def test_table_has_mean_and_spread_over_seeds(tmp_path, monkeypatch):
    """Runs of a recipe that differ in the seed alone live side by side and share a row."""
    monkeypatch.setattr(data, "folder", lambda: tmp_path)
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path / "pretrained")

    def kept(*arguments):
        assert train_cli.train([*arguments, "--steps", "2", "--keep", "--out", str(tmp_path / "runs")]) == 0
        return sorted(path.stem for path in (tmp_path / "cards").glob("*.json"))

    two = ["maf-moons", "nice-moons"]
    assert kept(*two) == kept(*two, "--seed", "0") == two, "the recipe's own seed has no label, given or not"
    kept("nice-moons", "--seed", "3", "--publish")
    assert kept("nice-moons", "--seed", "1") == [*two, "nice-moons.seed1", "nice-moons.seed3"]
    assert pretrained.card("nice-moons")["seed"] == 3, "what was published is the run that was asked for"

    found = runs.cards(tmp_path / "cards")
    assert [card["seed"] for card in found if card["name"] == "nice-moons"] == [0, 1, 3]
    values = torch.tensor([c["results"]["NLL"]["value"] for c in found if c["name"] == "nice-moons"]).double()
    mean = values.sum() / 3
    spread = math.sqrt(((values - mean) ** 2).sum() / 2)
    text = runs.table("flows", found)
    assert text.count("| `nice-moons` |") == text.count("| `maf-moons` |") == 1
    (line,) = [line for line in text.splitlines() if "nice-moons" in line]
    assert f" {mean:.3f} ± {spread:.3f} (3 seeds) |" in line and "| 2 | 0, 1, 3 |" in line

    other = found[0] | {"seed": 4, "command": found[0]["command"].replace("smoke --seed 0", "cpu --seed 4")}
    assert runs.table("flows", [*found, other]).count("| `nice-moons` |") == 2, "another budget is another row"
    one = runs.table("flows", found[:1])
    assert f"| {runs.number(found[0]['results']['NLL'])} |" in one and "seeds" not in one


def test_card_round_trip(tmp_path):
    model, card = runs.run("maf-digits8", steps=2, out=tmp_path, progress=False)
    folder = tmp_path / "maf-digits8"
    assert json.loads((folder / "card.json").read_text(encoding="utf-8")) == card
    assert runs.cards(tmp_path) == [card]
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    page = (folder / "card.md").read_text(encoding="utf-8")
    for text in (runs.number(card["results"]["NLL"]) + " nats", card["command"], card["machine"], card["convention"]):
        assert text in page


def test_likelihood_is_on_the_scale_of_the_data():
    """A uniform density on [0, 1) for 8x8 digits is one of 17^-64 on [0, 17): log2(17) bits/dim."""

    class Uniform(torch.nn.Module):
        def log_prob(self, x):
            assert bool((x >= 0).all()) and bool((x < 1).all())
            return x.new_zeros(len(x))

    found = recipe.likelihood(Uniform(), recipes.get("maf-digits8").data())
    assert found["NLL"]["value"] == pytest.approx(64 * math.log(17))
    assert found["bits/dim"]["value"] == pytest.approx(math.log2(17))
    assert found["NLL"]["n"] == 397


def test_dequantization_is_judged_by_bounds_of_the_integers():
    """An untrained flow with uniform noise: its ELBO is the likelihood with noise from outside, and more draws help."""
    name = "dequantization-uniform-fashion"
    rows = recipes.get(name).data().first(200)
    model = recipes.get(name).build(rows, "smoke")
    model.loss(rows.train)  # the activation norms start from it
    model.eval()
    found, again = (recipes.dequantized_bounds(model, rows) for _ in range(2))
    outside = recipe.likelihood(model.flow, recipes.shipped("fashion_mnist", 256).first(200))
    assert found == again and list(found) == ["ELBO", "IWAE, k = 2"]
    assert found["ELBO"]["value"] == pytest.approx(outside["bits/dim"]["value"], abs=2e-3)
    assert found["ELBO"]["standard_error"] == pytest.approx(outside["bits/dim"]["standard_error"], rel=0.02)
    assert found["IWAE, k = 2"]["value"] < found["ELBO"]["value"]
    other = recipes.get("dequantization-variational-fashion").build(rows, "smoke")
    assert [p.shape for p in other.flow.parameters()] == [p.shape for p in model.flow.parameters()], "the same flow"
    assert len(list(other.parameters())) > len(list(model.parameters()))


class Replay(torch.nn.Linear):
    """A sampler that repeats given points."""

    def __init__(self, points):
        super().__init__(1, 1)
        self.points = points

    def sample(self, n, generator):
        return self.points[:n]


def test_samplers_are_judged_against_the_test_split(monkeypatch):
    monkeypatch.setenv("DGM_BUDGET", "cpu")
    rows = recipes.get("gan-moons").data()
    good, half = rows.train[:1000], rows.train[rows.train[:, 1] > rows.train[:, 1].median()]
    fair, collapsed = (recipes.get("gan-moons").evaluate(Replay(points), rows) for points in (good, half))
    assert fair["p-value"]["value"] > 0.05 and abs(fair["MMD^2"]["value"]) < 0.5
    assert min(fair["precision"]["value"], fair["recall"]["value"]) > 95
    assert collapsed["p-value"]["value"] < 0.01 and collapsed["MMD^2"]["value"] > 10
    assert collapsed["precision"]["value"] > 90 and collapsed["recall"]["value"] < 65, (
        "good points, half of them missing"
    )


def test_runs_of_a_gan_follow_their_seed(tmp_path):
    digests = [
        runs.run("wgan-moons", steps=2, seed=seed, out=tmp_path / str(i), progress=False)[1]["weights"]["sha256"]
        for i, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_recipe_can_have_context_loss_and_numbers_of_its_own(tmp_path, monkeypatch):
    """What conditional models, VAEs and GANs need: pairs as splits, another loss, other numbers than likelihoods."""
    x, y = torch.randn(64, 2), torch.randn(64, 1)
    rows = recipe.Data("points with a context", (x, y), (x, y), (x, y), metrics.continuous())
    seen = []

    def loss(model, x, context):
        seen.append(context.shape[1])
        return model.loss(x, context) + sum(p.square().sum() for p in model.parameters())

    def spread(model, data):
        samples = model.sample(len(data.test[0]), context=data.test[1])
        return {"spread": {"value": samples.std().item(), "unit": "length", "standard_error": None, "n": 64}}

    mine = recipes.Recipe(
        lambda data, small: flows.maf(2, 1, (8,), 1), lambda: rows, "maf", "flows", 3, 16, loss=loss, evaluate=spread
    )
    monkeypatch.setitem(recipes.RECIPES, "mine", mine)
    card = runs.run("mine", out=tmp_path, progress=False)[1]
    assert set(seen) == {1}
    assert card["results"]["spread"]["unit"] == "length"
    assert "| spread (test) |" in runs.markdown(card)
    assert "spread, length" in runs.table("flows", [card])


def test_published_weights_load_and_give_the_card_s_numbers(shelf, tmp_path):
    assert train_cli.train(["maf-digits8", "--steps", "2", "--publish", "--out", str(tmp_path)]) == 0
    assert pretrained.names() == ["maf-digits8"]
    model, recipe = pretrained.load("maf-digits8"), recipes.get("maf-digits8")
    assert not model.training
    assert recipe.evaluate(model, recipe.data()) == pretrained.card("maf-digits8")["results"]
    trained = load_file(tmp_path / "maf-digits8" / "model.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained[key]), key


def test_weights_shrink_to_half_or_are_refused(shelf, tmp_path, monkeypatch):
    _, card = runs.run("spline-moons", steps=2, out=tmp_path, progress=False)
    floats = card["weights"]["bytes"]
    monkeypatch.setattr(pretrained, "LIMIT", floats * 3 // 4)
    published = pretrained.publish("spline-moons", tmp_path)
    assert published["weights"]["dtype"] == "float16" and published["weights"]["bytes"] < floats * 3 // 4
    model = pretrained.load("spline-moons")
    assert next(model.parameters()).dtype == torch.float32
    results = recipe.likelihood(model, recipes.get("spline-moons").data())
    assert results == published["results"] != card["results"]
    monkeypatch.setattr(pretrained, "LIMIT", floats // 4)
    with pytest.raises(ValueError, match=r"take [\d,]+ bytes as float16, at most"):
        pretrained.publish("spline-moons", tmp_path)


def test_what_cannot_be_loaded_says_why(shelf, tmp_path):
    with pytest.raises(ValueError, match=r"no recipe is called 'maf-mons'; there are maf-moons, "):
        pretrained.load("maf-mons")
    with pytest.raises(ValueError, match=r"no weights of 'maf-moons' ship, only of none: dgm train maf-moons"):
        pretrained.load("maf-moons")
    with pytest.raises(FileNotFoundError, match=r"finish the run first \(dgm train maf-moons\)"):
        pretrained.publish("maf-moons", tmp_path)
    runs.run("maf-moons", steps=2, out=tmp_path, progress=False)
    pretrained.publish("maf-moons", tmp_path)
    weights, about = shelf / "maf-moons.safetensors", shelf / "maf-moons.json"
    state = load_file(weights)
    key = next(key for key, value in state.items() if value.dim() == 2)
    save_file({**state, key: state[key][:1].clone()}, weights)
    with pytest.raises(ValueError, match="sha256 is not that of the card"):
        pretrained.load("maf-moons")
    card = json.loads(about.read_text(encoding="utf-8"))
    digest = pretrained.hashlib.sha256(weights.read_bytes()).hexdigest()
    about.write_text(json.dumps(card | {"weights": card["weights"] | {"sha256": digest}}), encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"1 entries differ, the first is {re.escape(key)}: wanted shape .*, got \(1,"
    ):
        pretrained.load("maf-moons")


def test_shipped_weights_are_those_of_their_cards():
    for name in pretrained.names():
        path = pretrained.folder() / f"{name}.safetensors"
        assert path.stat().st_size <= pretrained.LIMIT
        assert all(bool(p.isfinite().all()) for p in pretrained.load(name).parameters())
        card = pretrained.card(name)
        assert path.with_suffix(".md").read_text(encoding="utf-8") == runs.markdown(card)


def test_tables_are_up_to_date_with_the_cards():
    folder = data.folder() / "cards"
    page, found = (folder / "README.md").read_text(encoding="utf-8"), runs.cards(folder)
    assert {card["name"] for card in found} == set(recipes.RECIPES), "each recipe has a card"
    for card in found:
        recipe, again = recipes.get(card["name"]), f"run again: dgm train {card['name']} --keep"
        assert (card["model"], card["options"]) == (recipe.about, json.loads(json.dumps(recipe.options))), again
        said, options = re.search(r"--steps (\d+)", card["command"]), card["options"]
        steps = int(said[1]) if said else recipe.steps[card["budget"]]
        stopped = card["best_step"] + options["patience"] * options["eval_every"] if "patience" in options else steps
        assert card["steps"] in (steps, stopped), again
    for name in {card["table"] for card in found}:
        assert runs.insert(page, name, runs.table(name, found)) == page, f"run: dgm table {name}"


def test_command_lists_trains_and_tables(tmp_path, capsys):
    assert train_cli.train(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in recipes.RECIPES)
    assert train_cli.train(["nice-moons", "planar-moons", "--steps", "2", "--out", str(tmp_path)]) == 0
    assert "nice-moons: NLL " in capsys.readouterr().out
    for _ in range(2):  # the second time into the page that is there
        assert train_cli.table(["flows", "--cards", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.count("| `nice-moons` |") == page.count("| `planar-moons` |") == 1
    assert "NLL, nats" in page


def test_command_says_what_is_wrong(tmp_path, capsys):
    assert train_cli.train(["maf-moons", "glow-faces", "--out", str(tmp_path)]) == 1
    assert "no recipe is called 'glow-faces'; there are glow-fashion" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is trained before the names are known to be right"
    train_cli.train(["nice-moons", "--steps", "2", "--out", str(tmp_path)])
    assert train_cli.train(["nice-moons", "--steps", "3", "--out", str(tmp_path)]) == 1
    assert "is a run with {'steps': 2}, this one has {'steps': 3}" in capsys.readouterr().err
    assert train_cli.table(["flows", "--cards", str(tmp_path / "none")]) == 1
    assert "no card of the table 'flows'" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("a page without markers")
    assert train_cli.table(["flows", "--cards", str(tmp_path)]) == 1
    assert "<!-- flows: begin -->" in capsys.readouterr().err
