"""The form of an attack. Files of this folder list attacks as answers to the exercise `coupling` of the tiny course.

In a source, COURSE stands for the path of the course folder, PID for the process id of the grader, PORT for a port of
this machine that a server listens on.
"""

import textwrap
from dataclasses import dataclass

from autograder.isolation import LEVELS
from tests.grading import tiny

RIGHT = tiny.right_answer("coupling")
WALLS = LEVELS[:2]
listed = []


@dataclass(frozen=True)
class Attack:
    """A hostile answer.

    Attributes:
        name: in a few words.
        source: the student's cell.
        outcomes: those that the exercise may have.
        levels: isolation levels that stop it.
        hurts_itself: it may cost its author points of other exercises, as it would in JupyterLab.
    """

    name: str
    source: str
    outcomes: tuple
    levels: tuple
    hurts_itself: bool = False

    def __str__(self):
        return self.name


def attack(name, source, outcomes, levels=LEVELS, hurts_itself=False):
    """Lists an attack. `outcomes` is a word, or several."""
    listed.append(Attack(name, textwrap.dedent(source).strip(), tuple(outcomes.split()), levels, hurts_itself))


def inside(name, body, outcomes, levels=LEVELS):
    """Lists an attack that is made when the tests call the answer."""
    attack(name, "def coupling(x, net):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    "), outcomes, levels)


def beside(name, code, levels=LEVELS):
    """Lists an attack beside a right answer, which keeps its points. Nothing else may come of it."""
    attack(name, textwrap.dedent(code).strip() + "\n" + RIGHT, "passed", levels)


def peek(name, code, levels=WALLS):
    """Lists an attempt to reach something, beside a right answer. It has worked if it sets `found` to something."""
    body = textwrap.indent(textwrap.dedent(code).strip(), "    ")
    beside(
        name,
        f"found = None\ntry:\n{body}\nexcept BaseException:\n    pass\nif found:\n    print('LEAK', found)",
        levels,
    )


def named(name):
    """The attack of that name."""
    return next(attack for attack in listed if attack.name == name)
