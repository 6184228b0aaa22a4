"""The trusted side's hold on answer processes: starts them, gives them orders, ends them."""

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass

from autograder.remote import Caller
from autograder.spawn import spawn
from autograder.wire import MAX_ARRAYS, Closed, Late, Line, WireError, clean


@dataclass(frozen=True)
class Limits:
    """What a submission may use. One place for all of them.

    Attributes:
        exercise_seconds: wall time of all tests of one exercise.
        cell_seconds: wall time of one of the student's cells. A cell that does not stop then gets `grace_seconds` more.
        output: characters kept of what a cell prints.
        reply_bytes: array bytes of one reply.
        restarts: how often a submission whose process died is run again without the cell that killed it.
        memory_bytes: address space of each of its processes beyond what torch and the modules take.
        cpu_seconds: CPU time of each of its processes.
        processes: processes and threads, all together.
        file_bytes: size of a file that it writes.
        disk_bytes: size of all files that it writes, where the isolation level can limit that.
    """

    exercise_seconds: float = 10.0
    cell_seconds: float = 60.0
    grace_seconds: float = 2.0
    output: int = 20_000
    reply_bytes: int = MAX_ARRAYS
    restarts: int = 5
    memory_bytes: int = 2 << 30
    cpu_seconds: int = 600
    processes: int = 64
    file_bytes: int = 64 << 20
    disk_bytes: int = 256 << 20

    def for_walls(self):
        """Those that the kernel enforces."""
        names = ("memory_bytes", "cpu_seconds", "processes", "file_bytes", "disk_bytes")
        return {name: getattr(self, name) for name in names}


class AnswerDied(Exception):
    """The answer process is gone. Its text says how it ended."""

    def __init__(self, text, outcome="died"):
        super().__init__(text)
        self.outcome = outcome


class WarmParent:
    """Starts and orders the warm parent of answer processes (see `answer.py`).

    Args:
        told: what it is told: modules to import, locked modules, isolation, limits.
        started: what `spawn` returned, if it was started before.
        sock: the line to one that runs already, instead.
    """

    def __init__(self, told=None, started=None, sock=None):
        self.process = None
        if sock is None:
            self.process, sock = started or spawn()
        self.line, self.ready = Line(sock), self.process is None
        if not self.ready:
            self.line.send("told", told)

    def _order(self, operation, *values, sock=None):
        if not self.ready:
            self.line.deadline = time.monotonic() + 120
            self.line.receive_plain()
            self.ready, self.line.deadline = True, None
        self.line.send(operation, values)
        if sock is not None:
            self.line.send_fd(sock.fileno())
            sock.close()
        return self.line.receive_plain()[1]

    def fork(self, folder, reply_bytes):
        """Starts an answer process in `folder` and returns the line to it."""
        ours, theirs = socket.socketpair()
        self._order("fork", str(folder), reply_bytes, sock=theirs)
        return Line(ours, reply_bytes)

    def end(self, patience=0.0):
        """Ends the answer process. Returns its exit code or minus the signal that it died of; 0 if it was alive.

        Args:
            patience: seconds to wait for it to end by itself.
        """
        return self._order("end", patience)

    def clone(self):
        """A second warm parent, for another worker."""
        ours, theirs = socket.socketpair()
        self._order("clone", sock=theirs)
        return WarmParent(sock=ours)

    def close(self):
        """Ends the warm parent."""
        self.line.sock.close()
        if self.process is not None:
            self.process.wait()


class Answers:
    """One submission in its answer process. When a cell kills it, it is started again without that cell.

    Attributes:
        done: the cells that have run and the modules that were unlocked, in order.
    """

    def __init__(self, parent, folder, limits):
        self.parent, self.folder, self.limits = parent, folder, limits
        self.done, self.starts, self.line, self.owed = [], 0, None, 0

    def run(self, source):
        """Runs a cell: a dict with `outcome` (None, "error", "timeout" or "died"), `message`, `line`, `output`."""
        self._start()
        try:
            report = self._run(source)
        except AnswerDied as death:
            return {"outcome": death.outcome, "message": str(death), "line": None, "output": ""}
        self.done.append(source)
        return report

    def unlock(self, served):
        """Hands over locked modules: name -> what `lock.sources` has of it."""
        self.done.append(served)
        if self.line is not None:
            with contextlib.suppress(AnswerDied):  # then the next start unlocks them
                self._order("unlock", served)

    @contextlib.contextmanager
    def serving(self, last):
        """A `Caller` that talks to a server with all that the cells so far have made, for one exercise.

        After the `last` exercise no cell can be run.
        """
        self._start()
        ours, theirs = socket.socketpair()
        self.owed += 1  # the answer to "serve" is awaited later: it forks while the tests begin
        with contextlib.suppress(Closed, Late):  # then the first call finds it dead
            self.line.deadline = time.monotonic() + self.limits.grace_seconds
            self.line.send("serve", (self.limits.reply_bytes, own_core(), last))
            self.line.send_fd(theirs.fileno())
        theirs.close()
        line = Line(ours, self.limits.reply_bytes)
        line.deadline = time.monotonic() + self.limits.exercise_seconds
        try:
            yield Caller(line)
        finally:
            ours.close()
            if self.line is not None:
                with contextlib.suppress(Closed, Late):  # then the next order finds it dead
                    self.line.deadline = time.monotonic() + self.limits.grace_seconds
                    self.line.send("drop", ())

    def has_served(self):
        """Whether the server of the current exercise was started; not if the process had died before."""
        with contextlib.suppress(AnswerDied):
            self._settle()
            return self.line is not None
        return False

    def how_server_ended(self):
        """How the server of the current exercise ended, in words."""
        try:
            code = self._order("stop", 0.5)
        except AnswerDied as death:
            return str(death)
        return ended(code if isinstance(code, int) else 0)

    def close(self, patience=0.0):
        """Ends the answer process; see `WarmParent.end`."""
        if self.line is not None:
            self.line.sock.close()
            self.line, self.owed = None, 0
        return self.parent.end(patience)

    def _start(self):
        if self.line is not None:
            return
        self.starts += 1
        if self.starts > 1 + self.limits.restarts:
            raise AnswerDied("the notebook's process died too often")
        self.line = self.parent.fork(self.folder, self.limits.reply_bytes)
        for step in self.done:
            if isinstance(step, str):
                self._run(step)
            else:
                self._order("unlock", step)

    def _run(self, source):
        limits = self.limits
        report = self._order("run", source, limits.cell_seconds, limits.output, seconds=limits.cell_seconds)
        match report:
            case {"outcome": str() | None as outcome, "message": str(), "line": int() | None, "output": str()} if (
                outcome in (None, "error", "timeout", "memory")
            ):
                report["message"] = clean(report["message"])
                report["output"] = clean(report["output"], limits.output + 20)
                return report
        self.close()
        raise AnswerDied("the process gave a reply that makes no sense")

    def _settle(self):
        """Takes the answers to "serve" that are still owed."""
        while self.owed:
            self.owed -= 1
            self._ask(0.0)

    def _order(self, operation, *values, seconds=0.0):
        self._settle()
        return self._ask(seconds, operation, values)

    def _ask(self, seconds, *order):
        self.line.deadline = time.monotonic() + seconds + self.limits.grace_seconds
        try:
            if order:
                self.line.send(*order)
            return self.line.receive_plain()[1]
        except Late:
            self.close()
            raise AnswerDied(f"did not stop after {seconds:g} s", "timeout") from None
        except (Closed, WireError):
            raise AnswerDied(ended(self.close(patience=0.5))) from None


def keep_to_core(number, workers):
    """Gives worker `number` a core of its own, if there are as many workers as cores; else any core is better."""
    with contextlib.suppress(AttributeError, OSError):  # no such call on macOS
        cores = sorted(os.sched_getaffinity(0))
        if workers >= len(cores):
            os.sched_setaffinity(0, {cores[number % len(cores)]})


def own_core():
    """The core that this process keeps to, or None if it may run on several."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return min(cores) if len(cores) == 1 else None


def ended(code):
    """An exit code in words."""
    if code < 0:
        return f"your code ended the process ({signal.Signals(-code).name})"
    return f"your code ended the process (exit code {code})"
