"""The lint of test cells: they speak data, stand on their own, and judge alike wherever they run.

A test cell may use what the set-up cell imports, what it defines itself, builtins, and names of the notebook's answers
and given cells; these last only as arguments of `checks.*` and of wrapped calls.
"""

import ast
import builtins

import nbformat

from autograder.notebooks import grade_id, grader_metadata, is_test, tags
from autograder.release import regions
from autograder.runner import free_names, global_names

NO_TRAINING = "no training in a test cell"
NO_STDERR = "writes to stderr, which costs points under stock nbgrader"
FORBIDDEN_NAMES = {"tqdm": NO_STDERR, "warnings": NO_STDERR}
FORBIDDEN_ATTRIBUTES = {"optim": NO_TRAINING, "fit": NO_TRAINING, "backward": "use checks.grad_of", "stderr": NO_STDERR}
SEEDING = {"torch.manual_seed", "np.random.seed", "numpy.random.seed", "random.seed"}


class Reader(ast.NodeVisitor):
    """Collects what is wrong in one test cell.

    Attributes:
        students: names of the notebook that the cell uses.
        wrapped: names that the cell has bound to wrapped functions or to what a wrapped call returned.
        generators: names that the cell has bound to random generators.
    """

    def __init__(self, students):
        self.students, self.wrapped, self.generators, self.errors = students, set(), set(), []

    def is_spoken_to(self, func):
        """Whether a call of `func` crosses the line in the right way: `checks.*`, or something wrapped."""
        if isinstance(func, ast.Attribute):
            return ast.unparse(func.value) == "checks" or self.is_spoken_to(func.value)
        if isinstance(func, ast.Call):  # checks.wrap(Flow)(shift)
            return self.is_spoken_to(func.func)
        return isinstance(func, ast.Name) and func.id in self.wrapped

    def visit_Assign(self, node):
        """Notes wrapped names and generators."""
        names = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        if isinstance(node.value, ast.Call):
            func = ast.unparse(node.value.func)
            is_check = func.startswith("checks.") and "(" not in func and func != "checks.wrap"
            if self.is_spoken_to(node.value.func) and not is_check:
                self.wrapped |= names
            if "torch.Generator" in func or "default_rng" in func:
                self.generators |= names
        self.generic_visit(node)

    def visit_Call(self, node):
        """Arguments that may cross are looked into; everything else is visited as usual."""
        name = ast.unparse(node.func)
        if name in SEEDING:
            self.errors.append(f"{name}: a seed does not reach the answer process; pass numbers or a seed")
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if self.is_spoken_to(node.func):
            for argument in arguments:
                if isinstance(argument, ast.Name) and argument.id in self.generators:
                    self.errors.append(f"{argument.id} is a random generator: pass an integer seed or the numbers")
                if not (isinstance(argument, ast.Name) and argument.id in self.students):
                    self.visit(argument)
            if not isinstance(node.func, ast.Name):
                self.visit(node.func)
        else:
            self.generic_visit(node)

    def visit_Name(self, node):
        """A name of the notebook anywhere else than as an argument."""
        if node.id in self.students:
            self.errors.append(f"{node.id} is the student's: it can only be an argument of checks.* or a wrapped call")
        if node.id in FORBIDDEN_NAMES:
            self.errors.append(f"{node.id}: {FORBIDDEN_NAMES[node.id]}")

    def visit_Attribute(self, node):
        """Forbidden attributes."""
        if node.attr in FORBIDDEN_ATTRIBUTES:
            self.errors.append(f"{node.attr}: {FORBIDDEN_ATTRIBUTES[node.attr]}")
        self.generic_visit(node)

    def visit_Import(self, node):
        """Imports belong into the set-up cell."""
        self.errors.append(f"`{ast.unparse(node)}`: imports belong into the set-up cell")

    visit_ImportFrom = visit_Import


def ends_with_print(tree):
    """Whether the last statement prints: `print(...)`, or `with checks.exercise(...)`, which does."""
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.With):
        return any(ast.unparse(item.context_expr).startswith("checks.exercise(") for item in last.items)
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and ast.unparse(last.value.func) == "print"


def check_source(source, setup_names, student_names):
    """What is wrong with the source of a test cell: a list of messages."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"no Python: {error.msg} in line {error.lineno}"]
    foreign = free_names(source) - setup_names - set(dir(builtins))
    reader = Reader(foreign & student_names)
    reader.visit(tree)
    errors = reader.errors
    errors += [f"{name} is neither imported by the set-up cell nor a name of an answer or a given cell"
               for name in sorted(foreign - student_names)]  # fmt: skip
    if not ends_with_print(tree):
        errors.append("must end with print(...) or `with checks.exercise(...)`: a bare value would become the grade")
    return errors


def check_notebook(notebook):
    """What is wrong with the test cells of a solution notebook: a list of messages with the cell's grade_id."""
    cells = notebook["cells"]
    by_id = {grade_id(cell): cell for cell in cells if grade_id(cell)}
    if "setup" not in by_id:
        return ["there is no set-up cell with grade_id setup"]
    setup, students, found = global_names(by_id["setup"]["source"])[1], set(), []
    for key, cell in by_id.items():
        if cell["cell_type"] == "code" and not is_test(cell) and key != "setup":
            students |= global_names(cell["source"])[1]
    for key, cell in by_id.items():
        if not is_test(cell):
            continue
        meta, errors = grader_metadata(cell), check_source(cell["source"], setup, students)
        exercise = key.removesuffix("_visible").removesuffix("_hidden")
        twin = f"{exercise}_visible" if key.endswith("_hidden") else f"{exercise}_hidden"
        if key == exercise or twin not in by_id:
            errors.append("a test is a pair of cells, X_visible and X_hidden")
        if exercise not in by_id:
            errors.append(f"there is no student's cell with grade_id {exercise}")
        if not meta.get("points", 0) > 0:
            errors.append("has no points")
        if not meta.get("locked"):
            errors.append("is not locked")
        if "raises-exception" not in tags(cell):
            errors.append("has no tag raises-exception, so a failure would stop Run All")
        hidden = regions(cell["source"], "HIDDEN TESTS")
        if bool(hidden) != key.endswith("_hidden"):
            errors.append("a hidden test, and no other, has a region BEGIN HIDDEN TESTS")
        if hidden:
            inside = {line for lines in hidden for line in lines}
            outside = (line.strip() for line in cell["source"].splitlines() if line not in inside)
            if not any(line.startswith("#") and not line.startswith("###") for line in outside):
                errors.append("keeps no comment outside the hidden region, so students would see an empty cell")
        found += [f"{key}: {error}" for error in errors]
    return found


def lint(paths):
    """What is wrong with the test cells of the solution notebooks at `paths`: a list of messages."""
    return [f"{path}: {message}" for path in paths for message in check_notebook(nbformat.read(path, as_version=4))]
