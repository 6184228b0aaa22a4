"""Grading on a `dask.distributed` cluster: the same work units, on workers that have the course's packages.

Each worker process keeps a warm grader of the assignment, with walls of its own. Files are read and marks are written
where `dgm grade` runs; workers need neither the course folder nor the gradebook.
"""

import threading

from autograder import isolation
from autograder.notebooks import CourseError
from autograder.runner import Grader, read

_one_at_a_time = threading.Lock()
_graders = {}  # in a worker: key -> Grader


def grade(address, assignment, limits, level, paths):
    """Yields `(student, result, cells)` for each of `paths` (student -> path), as they are done.

    Args:
        address: of the scheduler, e.g. `tcp://host:8786`.
        assignment, limits: as in `Grader`.
        level: least isolation level that a worker must reach, else its submissions fail.
        paths: student -> path of the file.

    Raises:
        CourseError: no scheduler there, or no `distributed` here; a worker cannot isolate answers.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise CourseError("--scheduler needs dask.distributed: pip install -e '.[cluster]'") from None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise CourseError(f"no scheduler answers at {address}: {error}") from None
    with client:
        told = client.scatter((assignment, limits, level), broadcast=True)
        jobs = {client.submit(work, told, *read(path), pure=False): student for student, path in paths.items()}
        for job in as_completed(jobs):
            yield jobs[job], *job.result()


def work(told, data, remark):
    """Grades one submission on a worker."""
    with _one_at_a_time:  # a worker may have several threads
        return warm_grader(*told).grade_bytes(data, remark)


def warm_grader(assignment, limits, level):
    """The grader of an assignment, made once in each worker process."""
    key = assignment.name, repr(assignment.solution), limits, level
    if key not in _graders:
        reached = isolation.best()
        if isolation.refused(reached, level):
            raise CourseError(f"a worker reaches isolation {reached!r} only, {level!r} is wanted")
        while _graders:
            _graders.popitem()[1].__exit__()
        _graders[key] = Grader(assignment, limits, level=level).__enter__()
    return _graders[key]
