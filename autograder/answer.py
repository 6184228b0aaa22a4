"""The answer process: runs a student's notebook and answers calls. It never sees a test.

    warm parent     started by exec; has imported torch, IPython and the set-up cell's modules
      keeper        one for each submission: sets up the walls around it, see `isolation.py`
        child       behind them: runs the student's cells in order
          server    one for each exercise, forked at its tests: answers the calls of the test process; for the last
                    one the child itself, if no cell follows

Run as `python -m autograder.answer FD`, with the number of a socket to take orders from. The first order tells the
`modules` to import, those that are `locked` (see `lock.py`), and the walls and limits (see `isolation.keep`).
"""

import builtins
import contextlib
import gc
import importlib
import io
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings

import torch
from IPython.core.interactiveshell import InteractiveShell

from autograder import lock
from autograder.isolation import keep
from autograder.wire import Closed, Line, Peer, clean, seed
from dgm_course import checks


class CellTimeout(BaseException):
    """A cell has run for longer than its limit."""


class Shell(InteractiveShell):
    """IPython without history, threads and front end, so that magics and `!` work and nothing else is needed."""

    def enable_gui(self, gui=None):
        """`%matplotlib inline` and its like: there is nothing to show figures on."""

    def enable_matplotlib(self, gui=None):
        """As `enable_gui`."""
        return None, None

    def _tee(self, channel):
        """IPython would keep all that is printed once more, without bound."""
        return contextlib.nullcontext()

    def init_history(self):
        """A history would need a database and a thread that does not survive a fork."""
        from IPython.core.history import HistoryManager

        HistoryManager.enabled = False
        super().init_history()


class Capped(io.TextIOBase):
    """Standard output that keeps its first `limit` characters."""

    encoding = "utf-8"

    def __init__(self, limit):
        self.parts, self.left = [], limit

    def writable(self):
        """Always."""
        return True

    def write(self, text):
        """Keeps what still fits."""
        if self.left > 0 and text:
            self.parts.append(str(text[: self.left]))
            self.left -= len(text)
        return len(text)

    def text(self):
        """What was kept."""
        return clean("".join(self.parts), 1 << 30) + ("\n[output cut]\n" if self.left < 0 else "")


def where(error):
    """Line number and source of the last line of a student's cell in the traceback of `error`."""
    if isinstance(error, SyntaxError):
        return error.lineno, error.text
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "<ipython-input" in f.filename]
    return (frames[-1].lineno, frames[-1].line) if frames else (None, None)


def text_of(error):
    """`str(error)`, or nothing if that fails."""
    try:
        return clean(error.msg if isinstance(error, SyntaxError) else str(error))
    except BaseException:
        return ""


def is_memory(error):
    """Whether an exception says that the memory limit is reached; torch raises a RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text_of(error))


class Server(Peer):
    """Answers the test process, from the namespace that the student's cells have left."""

    caught = BaseException

    def __init__(self, line, namespace):
        super().__init__(line)
        self.namespace, self.handles = namespace, []

    def serve(self):
        """Answers until the other end closes."""
        with contextlib.suppress(Closed):
            while True:
                self.reply(*self.line.receive())

    def refer(self, value):
        """Everything that is not plain data stays here, behind a handle."""
        self.handles.append(value if isinstance(value, checks.Student) else checks.wrap(value))
        return "handle", len(self.handles) - 1, type(self.handles[-1]._target).__name__

    def resolve(self, parts):
        """A name of the notebook, a handle, a method of either, or a function of the test process."""
        kind, key, *path = parts
        if kind == "callback":
            return lambda *args, **kwargs: self.ask("callback", key, args, kwargs)
        if kind == "name" and key not in self.namespace:
            raise NameError(f"name '{key}' is not defined")
        value = checks.wrap(self.namespace[key]) if kind == "name" else self.handles[key]
        for name in path:
            value = getattr(value, name)
        return value

    def perform(self, operation, parts):
        """Calls what is asked for, just as `checks.wrap` and `checks.grad_of` do within one process."""
        if operation == "grad":
            target, wrt, args = parts
            return checks.grad_of(target, wrt, *args)
        target, args, kwargs = parts
        return target(*args, **kwargs)

    def describe(self, error):
        """Type, message and place of an exception."""
        line, source = where(error)
        types = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
        types = ["MemoryError", *types] if is_memory(error) else types
        kind = error.kind if isinstance(error, checks.CheckFailed) else ""
        return {"types": types, "text": text_of(error), "line": line, "source": source, "kind": str(kind)}

    def failure(self, report):
        """An exception of a callback: the same built-in exception, else RuntimeError."""
        name, text = report
        kind = getattr(builtins, name, None)
        is_exception = isinstance(kind, type) and issubclass(kind, Exception)
        return (kind if is_exception else RuntimeError)(text)


class Child:
    """Runs one submission, as the test process asks: cells one by one, and a server at each exercise's tests."""

    def __init__(self, line, shell, library):
        self.line, self.shell, self.importer, self.server, self.dying = line, shell, library, None, []

    def loop(self):
        """Takes orders until the other end closes."""
        while True:
            operation, value = self.line.receive_plain()
            result = getattr(self, f"do_{operation}")(*value)
            if operation != "drop":  # for that nobody waits
                self.line.send(operation, result)

    def do_run(self, source, seconds, output_limit):
        """Runs a cell. Returns its output, and the outcome and message if it was not run to its end."""
        output, report = Capped(output_limit), {"outcome": None, "message": "", "line": None}

        def ring(signum, frame):
            raise CellTimeout(f"stopped after {seconds:g} s")

        signal.signal(signal.SIGALRM, ring)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                result = self.shell.run_cell(source)
                error = result.error_before_exec or result.error_in_exec
            except BaseException as caught:
                error = caught
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if "matplotlib.pyplot" in sys.modules:
                with contextlib.suppress(Exception):
                    sys.modules["matplotlib.pyplot"].close("all")
        if error is not None:
            kind = "memory" if is_memory(error) else "error"
            report["outcome"] = "timeout" if isinstance(error, CellTimeout) else kind
            report["message"] = f"{type(error).__name__}: {text_of(error)}"
            report["line"] = where(error)[0]
        return {**report, "output": output.text()}

    def do_serve(self, reply_bytes, core, last):
        """Forks a server that has everything the cells so far have made, to run on `core` if that is not None.

        For the `last` exercise this process is the server itself: no cell follows that its calls could hurt. With
        process ids of its own it is number 1, which no signal of its own can end.
        """
        sock = socket.socket(fileno=self.line.receive_fd())
        if last:
            self.line.send("serve")
            self.serve(sock, reply_bytes, core)
        self.dying = [pid for pid in self.dying if not has_ended(pid)]
        try:
            self.server = os.fork()
        except BlockingIOError:  # the notebook's cells have started too many processes
            end_strays()
            self.server = os.fork()
        if self.server == 0:
            os.setpgid(0, 0)
            self.serve(sock, reply_bytes, core)
        sock.close()

    def serve(self, sock, reply_bytes, core):
        """The life of a server. Does not return."""
        self.line.sock.close()
        seed()
        sys.stdout = sys.stderr = Capped(0)
        checks.wrap(torch.sin)(torch.ones(1))  # copies what every call writes to, while the tests prepare theirs
        if core is not None:  # a call that stays on one core finds its caches warm
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {core})
        Server(Line(sock, reply_bytes), self.shell.user_ns).serve()
        os._exit(0)

    def do_stop(self, patience):
        """Ends the server. Returns its exit code, or minus the signal that it died of; see `end_process`."""
        server, self.server = self.server, None
        with contextlib.suppress(OSError):  # so that what it has started ends with it
            os.setpgid(server, server)
        code = end_process(server, os.killpg, patience)
        end_strays()
        return code

    def do_drop(self):
        """Ends the server, if there is one, without waiting for its end."""
        if self.server is not None:
            with contextlib.suppress(OSError):
                os.setpgid(self.server, self.server)
                os.killpg(self.server, signal.SIGKILL)
            self.dying.append(self.server)
            self.server = None
        end_strays()

    def do_unlock(self, served):
        """Opens modules that no exercise still to be graded asks for."""
        self.importer.unlock(served)


def end_strays():
    """Ends every other process of this submission, where it has process ids of its own."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(-1, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def has_ended(pid):
    """Reaps a process that has been killed, if it has ended by now."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


class Parent:
    """The warm parent: forks a child on request, and ends it with everything it has started."""

    def __init__(self, line, shell, library, cage):
        self.line, self.shell, self.importer, self.cage, self.child = line, shell, library, cage, None

    def loop(self):
        """Takes orders until the other end closes."""
        with contextlib.suppress(Closed):
            while True:
                operation, value = self.line.receive_plain()
                self.line.send(operation, getattr(self, f"do_{operation}")(*value))
        self.do_end()

    def do_fork(self, folder, reply_bytes):
        """Forks the child for a submission, working in `folder`."""
        sock = socket.socket(fileno=self.line.receive_fd())

        def work():
            run_child(sock, self.line, self.shell, self.importer, folder, reply_bytes)

        self.child = self._fork(lambda: keep(folder, self.cage, work))
        sock.close()

    def do_clone(self):
        """Forks a second warm parent, for another worker."""
        sock = socket.socket(fileno=self.line.receive_fd())
        self._fork(lambda: (self.line.sock.close(), Parent(Line(sock), self.shell, self.importer, self.cage).loop()))
        sock.close()

    def do_end(self, patience=0.0):
        """Has the keeper end the child and all that it has started. Returns what `end_process` does."""
        child, self.child = self.child, None
        return end_process(child, os.kill, patience, signal.SIGTERM)

    @staticmethod
    def _fork(work):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        return pid


def end_process(pid, kill, patience, how=signal.SIGKILL):
    """Kills and reaps a process.

    Args:
        pid: the process, or None.
        kill: `os.kill` or `os.killpg`.
        patience: seconds to wait for it to end by itself.
        how: the signal that ends it.

    Returns:
        Its exit code, or minus the signal that it died of; 0 if it was still alive.
    """
    if pid is None:
        return 0
    latest, ended = time.monotonic() + patience, 0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended or time.monotonic() >= latest:
            break
        time.sleep(0.002)
    if not ended or kill is os.killpg:  # a group lives on as long as one of its members
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, how)
    if not ended:
        os.waitpid(pid, 0)
        return 0
    return os.waitstatus_to_exitcode(status)


def run_child(sock, control, shell, library, folder, reply_bytes):
    """The life of a child."""
    control.sock.detach()
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, 1 << 16)
    os.environ |= {"HOME": folder, "TMPDIR": folder, "USER": "student", "LOGNAME": "student"}
    tempfile.tempdir = None  # forget what another folder was found for
    seed()
    with contextlib.suppress(Closed):
        Child(Line(sock, reply_bytes), shell, library).loop()


def main():
    """Imports what submissions need, then takes orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader, which then closes the line
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    torch.set_num_threads(1)
    torch.set_num_threads = torch.set_num_interop_threads = lambda n: None  # a fork does not survive other threads
    try:
        _, told = line.receive_plain()
    except Closed:  # nothing is to be graded
        return
    library = lock.Library(lock.sources(frozenset(told["locked"])), told["locked"])
    sys.meta_path.insert(0, library)
    for name in told["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.monitor_interval = 0  # no thread that watches progress bars
    warnings.filterwarnings("ignore", message=".*non-interactive.*")  # plt.show() on the Agg backend
    for logger in logging.root.manager.loggerDict.values():  # torch has dozens; each makes every fork slower
        for handler in list(getattr(logger, "handlers", ())):
            logger.removeHandler(handler)
    Shell.xmode = "Plain"
    shell = Shell.instance(colors="nocolor")
    seed()  # what is slow the first time, here and below, is done before any fork
    shell.run_cell("None")
    checks.wrap(torch.sin)(torch.ones(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # until here, a broken installation is reported
    gc.collect()
    gc.freeze()  # keeps pages shared between parent and children
    line.send("ready")
    Parent(line, shell, library, told).loop()


if __name__ == "__main__":
    main()
