"""nbgrader's configuration: `solutions` is the source, `lectures` the release, everything else keeps its usual name."""

from pathlib import Path

course = Path(__file__).resolve().parent
exchange = course / "exchange"
exchange.mkdir(exist_ok=True)  # a local one, in place of /usr/local/share/nbgrader; formgrader asks for it

c = get_config()  # noqa: F821  (given by traitlets, which runs this file)
c.CourseDirectory.root = str(course)
c.CourseDirectory.course_id = "dgm"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "lectures"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", "*.py", "*.md"]
c.Exchange.root = str(exchange)
c.NbGrader.logfile = ""
# what stands in a blank answer; the checks know it and say "still blank"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError()"}
c.ClearSolutions.text_stub = "*Write your answer here.*"

# `nbgrader autograde` and formgrader's button: damaged notebooks are repaired, answers run apart from the tests.
steps = "nbgrader.preprocessors."
c.Autograde.sanitize_preprocessors = [
    steps + "ClearOutput", "autograder.dropin.Repair", steps + "DeduplicateIds", steps + "OverwriteKernelspec",
    steps + "OverwriteCells", steps + "CheckCellMetadata",
]  # fmt: skip
c.Autograde.autograde_preprocessors = [
    "autograder.dropin.SplitExecute", steps + "IgnorePattern", "nbconvert.preprocessors.ClearMetadataPreprocessor",
    steps + "LimitOutput", steps + "SaveAutoGrades", steps + "AssignLatePenalties", steps + "CheckCellMetadata",
]  # fmt: skip
