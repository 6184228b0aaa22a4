"""`dgm report`: the class at a glance, on one page for instructors."""

from collections import Counter
from pathlib import Path
from statistics import mean, median

from matplotlib.figure import Figure

from autograder.gradebook import Book
from autograder.notebooks import CourseError, load_assignment
from autograder.pages import badge, block, page, picture, points, table, text, write_whole

COLOURS = {
    "passed": "#4a9d6a", "failed": "#d1605e", "error": "#a83f3d", "timeout": "#e59866", "memory": "#b9770e",
    "died": "#6e2c00", "blank": "#c8cdd4", "missing": "#9aa3ad", "unreadable": "#5b6472",
}  # fmt: skip


def main(course, args):
    """`dgm report`."""
    print(write_page(course, load_assignment(course, args.assignment), args.out))
    return 0


def write_page(course, assignment, path=None):
    """Writes the page, to `report/NAME.html` if not told otherwise, and returns its path.

    Raises:
        CourseError: if nothing is graded yet.
    """
    name = assignment.name
    with Book(course, assignment) as book:
        results = book.results()
    if not results:
        raise CourseError(f"nothing of {name} is graded yet: run `dgm grade {name}`")
    path = path or Path(course) / "report" / f"{name}.html"
    write_whole(path, class_page(name, results))
    return path


def class_page(name, results):
    """The page.

    Args:
        name: assignment.
        results: student -> the student's part of the JSON of `dgm grade`.
    """
    marks = [result["score"] for result in results.values()]
    most = next(iter(results.values()))["max_score"]
    exercises = [k for k, e in next(iter(results.values()))["exercises"].items() if e["outcome"] != "manual"]
    seconds = [result["seconds"] for result in results.values()]
    repaired = {student: result["repairs"] for student, result in results.items() if result["repairs"]}
    return page(
        f"{name}: the class",
        f"<h1>{text(name)}</h1>",
        f'<p class="quiet">{len(results)} students. Code points: mean {mean(marks):.1f}, median {median(marks):g} of '
        f"{most:g}. Grading took {sum(seconds):.1f} s in all, {median(seconds):.2f} s in the median, at most "
        f"{max(seconds):.2f} s. Written answers are not counted here.</p>",
        "<h2>Marks</h2>",
        picture(mark_plot(marks, most), "histogram of code points"),
        "<h2>Exercises</h2>",
        picture(outcome_plot(exercises, results), "outcomes of each exercise"),
        table(
            ["exercise", "all points", "mean", "points", "seconds (median)"],
            [exercise_row(key, results) for key in exercises],
            numbers=(1, 2, 3, 4),
        ),
        "<h2>Commonest failures</h2>",
        failure_table(exercises, results),
        "<h2>Time</h2>",
        picture(time_plot(seconds), "seconds to grade each submission"),
        "<h2>Students</h2>",
        table(
            ["student", "code points", "seconds", "not passed", "repairs"],
            [student_row(student, results[student], exercises) for student in sorted(results)],
            numbers=(1, 2, 4),
        ),
        "<h2>Repairs</h2>",
        table(["student", "what was put right"], [[text(s), "<br>".join(map(text, r))] for s, r in repaired.items()])
        if repaired
        else "<p>None was needed.</p>",
    )


def exercise_row(key, results):
    """How an exercise went."""
    found = [result["exercises"][key] for result in results.values()]
    passed = sum(exercise["outcome"] == "passed" for exercise in found)
    return [
        text(key),
        f"{passed} ({passed / len(found):.0%})",
        f"{mean(exercise['score'] for exercise in found):.2f}",
        f"{found[0]['max_score']:g}",
        f"{median(exercise['seconds'] for exercise in found):.2f}",
    ]


def student_row(student, result, exercises):
    """How a student did."""
    open_ones = ((key, result["exercises"][key]["outcome"]) for key in exercises)
    words = " ".join(f"{text(key)} {badge(outcome)}" for key, outcome in open_ones if outcome != "passed")
    mark = points(result["score"], result["max_score"])
    return [text(student), mark, f"{result['seconds']:.2f}", words, str(len(result["repairs"]))]


def failure_table(exercises, results, most=3):
    """The commonest messages of each exercise. Numbers that differ from student to student stay in."""
    rows = []
    for key in exercises:
        count = Counter()
        for result in results.values():
            for name, cell in result["exercises"][key]["cells"].items():
                if cell["outcome"] not in ("passed", "blank"):
                    count[name.rpartition("_")[2], cell["outcome"], cell["message"]] += 1
        for (kind, outcome, message), n in count.most_common(most):
            rows.append([text(key), kind, f"{n}", badge(outcome), block(message, 600)])
    return table(["exercise", "test", "students", "outcome", "message"], rows, numbers=(2,)) if rows else "<p>None.</p>"


def axes(width, height):
    """An empty plot."""
    figure = Figure(figsize=(width, height))
    made = figure.add_subplot()
    made.spines[["top", "right"]].set_visible(False)
    return figure, made


def mark_plot(marks, most):
    """How many students have how many points."""
    figure, plot = axes(9, 2.4)
    steps = max(int(most), 1)
    plot.hist(marks, bins=[k - 0.5 for k in range(steps + 2)], color="#4c78a8", rwidth=0.85)
    plot.set(xlabel=f"code points (of {most:g})", ylabel="students", xlim=(-0.6, steps + 0.6))
    for axis in (plot.xaxis, plot.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return figure


def outcome_plot(exercises, results):
    """The share of each outcome, a bar for each exercise."""
    figure, plot = axes(8, 0.6 + 0.34 * len(exercises))
    left = [0.0] * len(exercises)
    for outcome, colour in COLOURS.items():
        share = [
            sum(r["exercises"][key]["outcome"] == outcome for r in results.values()) / len(results) for key in exercises
        ]
        if any(share):
            plot.barh(exercises, share, left=left, color=colour, label=outcome, height=0.7)
            left = [a + b for a, b in zip(left, share, strict=True)]
    plot.invert_yaxis()
    plot.set(xlim=(0, 1), xlabel="share of the class")
    plot.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def time_plot(seconds):
    """Sorted times, so that outliers are seen."""
    figure, plot = axes(9, 2)
    plot.bar(range(1, len(seconds) + 1), sorted(seconds), color="#4c78a8", width=0.8)
    plot.set(xlabel="submissions, fastest first", ylabel="seconds", xlim=(0.4, len(seconds) + 0.6))
    plot.xaxis.get_major_locator().set_params(integer=True)
    return figure
