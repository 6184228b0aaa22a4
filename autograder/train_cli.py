"""`dgm train` follows recipes, `dgm table` writes their results down."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from dgm_course import data, pretrained, recipes, runs, training

PAGE = """# Results

Every number comes from the cards in this folder: `dgm train NAME --keep`, then `dgm table {name}`.

<!-- {name}: begin -->
<!-- {name}: end -->
"""


def train(argv):
    """Runs `dgm train ...`; returns 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="dgm train", description="Train models by their recipes; resumes by itself.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes, e.g. maf-moons")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    parser.add_argument("--budget", choices=training.BUDGETS, help="how much to compute (default: DGM_BUDGET)")
    parser.add_argument("--steps", type=int, metavar="N", help="another number of steps than the recipe's")
    parser.add_argument("--seed", type=int, metavar="S", help="another seed than the recipe's; table: mean over seeds")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--keep", action="store_true", help="also copy the card to data/cards/, for dgm table")
    parser.add_argument("--publish", action="store_true", help="also copy weights and card to data/pretrained/")
    args = parser.parse_args(argv)
    if args.budget:
        os.environ["DGM_BUDGET"] = args.budget
    try:
        if args.list or not args.names:
            for name, recipe in recipes.RECIPES.items():
                print(f"{name:26}{recipe.at(training.budget())['steps']:7,} steps  {recipe.about}")
            return 0
        for name in args.names:
            recipes.get(name)  # a wrong name stops the command before the first run
        for name in args.names:
            print(name)
            _, card = runs.run(name, args.steps, args.seed, args.out)
            for key, found in card["results"].items():
                print(f"{name}: {key} {runs.number(found)} {found['unit']} (test), {card['seconds']:.0f} s")
            if args.keep:
                run = runs.label(name, args.seed)
                kept = data.folder() / "cards" / f"{run}.json"
                kept.parent.mkdir(exist_ok=True)
                shutil.copyfile(args.out / run / "card.json", kept)
            if args.publish:
                card = pretrained.publish(name, args.out, args.seed)
                print(f"{name}: {card['weights']['bytes']:,} bytes in {pretrained.folder()}")
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"dgm train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndgm train: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def table(argv):
    """Runs `dgm table ...`; returns 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="dgm table", description="Write the results of model cards into a page.")
    parser.add_argument("name", choices=sorted({recipe.table for recipe in recipes.RECIPES.values()}))
    parser.add_argument("--cards", type=Path, metavar="DIR", help="folder of cards, e.g. runs (default: data/cards)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: README.md in that folder)")
    args = parser.parse_args(argv)
    folder = args.cards or data.folder() / "cards"
    page = args.out or folder / "README.md"
    try:
        text = runs.table(args.name, runs.cards(folder))
        before = page.read_text(encoding="utf-8") if page.exists() else PAGE.format(name=args.name)
        page.write_text(runs.insert(before, args.name, text), encoding="utf-8")
    except ValueError as error:
        print(f"dgm table: {error}", file=sys.stderr)
        return 1
    print(page)
    return 0
