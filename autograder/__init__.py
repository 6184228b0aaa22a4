"""Release, grading in two processes, gradebook and feedback: the `dgm` command."""
