"""Honest submissions that other graders hurt. Each keeps all points, at every isolation level.

An entry is a function that changes a right submission of the tiny course. Damage to the file itself, to cells and to
their metadata is in `tests/grading/test_align.py`, whose entries are run here once more.
"""

import json

from nbformat.v4 import new_code_cell, new_output

listed = {}


def honest(name):
    """Lists a change."""

    def add(change):
        listed[name] = change
        return change

    return add


def find(notebook, key):
    """The place of a released cell."""
    return next(i for i, c in enumerate(notebook.cells) if c.metadata.get("nbgrader", {}).get("grade_id") == key)


def before_answer(code):
    """A change that puts code before the answer `coupling`, in its cell."""

    def change(notebook):
        cell = notebook.cells[find(notebook, "coupling")]
        cell.source = code + "\n" + cell.source

    return change


def within_answer(code):
    """A change that puts code into the function `coupling`."""

    def change(notebook):
        cell = notebook.cells[find(notebook, "coupling")]
        head, rest = cell.source.split("\n", 1)
        cell.source = "\n".join([head, *("    " + line for line in code.splitlines()), rest])

    return change


def own_cell(code):
    """A change that puts a cell of the student's own before the answer."""
    return lambda notebook: notebook.cells.insert(find(notebook, "coupling"), new_code_cell(code))


WITHIN = {
    "warns": "import warnings; warnings.warn('careful')",
    "prints": "print('shape', x.shape)",
    "prints to stderr": "import sys; print('note', file=sys.stderr)",
    "logs": "import logging; logging.warning('note')",
    "divides by zero in numpy": "np.array([1.0]) / 0",
    "draws a plot": "plt.figure(); plt.plot([1, 2]); plt.show()",
    "is slow but allowed": "import time; time.sleep(0.05)",
    "draws random numbers": "torch.manual_seed(1); torch.randn(3)",
    "changes its argument": "keep = x.clone(); x.mul_(2); x = keep",
    "works without gradients": "torch.set_grad_enabled(False)",
    "prints in colours and with strange letters": "print('\\x1b[31mrot\\x1b[0m', '\\u202e\\U0001f600\\udcff'[:2])",
    "shows a progress bar": "import tqdm\nfor _ in tqdm.tqdm(range(3)): pass",
    "asks for a GPU if there is one": "x = x.to('cuda' if torch.cuda.is_available() else 'cpu')",
}
BEFORE = {
    "changes the default dtype": "torch.set_default_dtype(torch.float64)",
    "changes the seed": "torch.manual_seed(123); np.random.seed(4)",
    "asks for more threads": "torch.set_num_threads(4)",
    "computes with threads": "torch.randn(300, 300) @ torch.randn(300, 300)",
    "turns warnings into errors": "import warnings; warnings.simplefilter('error')",
    "prints much": "for _ in range(20_000): print('epoch')",
    "imports again": "import torch\nimport numpy as np\nfrom dgm_course import checks",
    "a file of its own": "open('notes.txt', 'w').write('x'); open('notes.txt').read()",
    "a comment in another language": "# \u00dc\u0431\u4f60 \u2192 \U0001f600",
    "tabs": "if True:\n\tpass",
    "type hints and a class": "from dataclasses import dataclass\n@dataclass\nclass Notes:\n    n: int = 0",
    "a global that the answer uses": "scale_of_mine = 1.0",
}
CELLS = {
    "%matplotlib inline": "%matplotlib inline",
    "a shell command": "!ls",
    "%pip": "%pip install nothing-at-all",
    "%%time": "%%time\nsum(range(10))",
    "%%bash": "%%bash\necho hello",
    "an unknown magic": "%no_such_magic",
    "help": "torch.matmul?",
    "an exception": "1 / 0",
    "a syntax error": "def broken(:\n",
    "exit": "import sys\nsys.exit(1)",
    "quit": "quit()",
    "input": "name = input('your name? ')",
    "an error of its own class": "class Mine(Exception): pass\nraise Mine('oh')",
    "a GPU that is not there": "torch.zeros(1).cuda()",
    "a package that is not there": "import no_such_package",
    "await": "import asyncio\nawait asyncio.sleep(0)",
    "a long training": "while True: pass",
    "threads": "import threading\nt = threading.Thread(target=print, args=('x',)); t.start(); t.join()",
    "processes": "import subprocess\nsubprocess.run(['echo', 'x'])",
    "a data loader": "from torch.utils.data import DataLoader\nnext(iter(DataLoader(torch.arange(4), batch_size=2)))",
    "a figure": "plt.imshow(np.zeros((4, 4))); plt.show()",
    "widgets": "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))",
    "downloads": "import urllib.request\nurllib.request.urlopen('https://example.org/', timeout=1)",
    "changes the folder": "import os\nos.makedirs('sub', exist_ok=True); os.chdir('sub')",
    "an old copy of the answer": "def coupling(x, net):\n    return x",
}
for name, code in WITHIN.items():
    listed[f"within the answer: {name}"] = within_answer(code)
for name, code in BEFORE.items():
    listed[f"before the answer: {name}"] = before_answer(code)
for name, code in CELLS.items():
    listed[f"a cell of its own: {name}"] = own_cell(code)


@honest("outputs of 30 MB")
def large_outputs(notebook):
    output = new_output("display_data", {"image/png": "A" * (30 << 20)})
    notebook.cells.insert(1, new_code_cell("plt.plot()", outputs=[output]))


@honest("script and HTML in outputs")
def markup(notebook):
    output = new_output("display_data", {"text/html": "<script>alert(1)</script>"})
    notebook.cells.insert(1, new_code_cell("1", outputs=[output]))


@honest("an answer merged into its own tests")
def merged_into_tests(notebook):
    place = find(notebook, "coupling")
    tests = notebook.cells[find(notebook, "coupling_visible")]
    tests.source = notebook.cells[place].source + "\n\n" + tests.source
    del notebook.cells[place]


@honest("tests merged into the answer")
def tests_merged_into_answer(notebook):
    place = find(notebook, "coupling_visible")
    answer = notebook.cells[find(notebook, "coupling")]
    answer.source += "\n\n" + notebook.cells[place].source
    del notebook.cells[place]


@honest("no nbgrader metadata, VS Code's way")
def vs_code(notebook):
    for cell in notebook.cells:
        cell.metadata = {"vscode": {"languageId": "python"}}


@honest("metadata of another tool")
def other_tool(notebook):
    notebook.metadata = json.loads('{"kernelspec": {"name": "my-env", "display_name": "x"}, "widgets": {"a": 1}}')
