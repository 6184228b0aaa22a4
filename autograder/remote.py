"""The trusted side of the line: proxies that stand for a student's names and objects in a test cell."""

from autograder.wire import Peer, WireError, clean
from dgm_course.checks import _TITLES, CheckFailed, Student


class RemoteError(Exception):
    """The student's code raised an exception.

    Attributes:
        remote_types: names of its class and of the classes below, e.g. `("KeyError", "LookupError", "Exception")`.
        text: its message.
        line: number of the line in the student's cell where it was raised, or None.
        source: that line, or None.
    """

    def __init__(self, remote_types, text, line=None, source=None):
        self.remote_types, self.text, self.line, self.source = remote_types, text, line, source
        place = f" (line {line} of your cell: `{source}`)" if line and source else ""
        super().__init__(f"{remote_types[0]}: {text}{place}" if text else f"{remote_types[0]}{place}")


class RemoteCheckFailed(CheckFailed):
    """A check that failed in the answer process, e.g. because the answer is still blank."""

    def __init__(self, kind, text):
        self.what, self.kind, self.cause = "your function", kind, None
        AssertionError.__init__(self, text)


class Remote:
    """A student's name or object. It can be called, its methods can be called, and it can be an argument of a call."""

    __slots__ = ("__name__", "_caller", "_reference")

    def __init__(self, caller, reference, name):
        self._caller, self._reference, self.__name__ = caller, reference, name

    def __call__(self, *args, **kwargs):
        return self._caller.call("call", self, args, kwargs)

    def __remote_grad__(self, wrt, args):
        return self._caller.call("grad", self, wrt, args)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return Remote(self._caller, (*self._reference, name), name)

    def _refused(self, *args, **kwargs):
        raise TypeError(
            f"{self.__name__} is an object of the student's notebook: a test cell can call it, call its methods and "
            "pass it on; results that a test cell looks into must be plain data"
        )

    __bool__ = __iter__ = __len__ = __getitem__ = __setitem__ = __contains__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __float__ = __int__ = __index__ = __array__ = _refused
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refused
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __enter__ = __exit__ = _refused
    __hash__ = object.__hash__


class Caller(Peer):
    """Asks the answer process, on behalf of the test cells of one exercise."""

    def __init__(self, line):
        super().__init__(line)
        self.callbacks, self.failed = [], None

    def call(self, operation, *parts):
        """Calls into the answer process. A check that fails inside a callback fails the cell, whatever follows it."""
        if self.depth == 0:
            self.failed = None
        try:
            return self.ask(operation, *parts)
        finally:
            if self.failed is not None:
                raise self.failed

    def refer(self, value):
        """What a test cell may send beside plain data: names, handles, and functions that are called back."""
        value = value._target if isinstance(value, Student) else value
        if isinstance(value, Remote):
            return value._reference
        if callable(value) and not isinstance(value, type):
            self.callbacks.append(value)
            return ("callback", len(self.callbacks) - 1)
        raise TypeError(f"a test cell can send numbers, strings, tensors, arrays, containers of these, functions and "
                        f"objects of the notebook, not {type(value).__name__}")  # fmt: skip

    def resolve(self, parts):
        """An object that stays in the answer process becomes a handle."""
        match parts:
            case ["handle", int(key), str(name)]:
                return Remote(self, ("handle", key), clean(name, 60))
        raise WireError("no handle")

    def perform(self, operation, parts):
        """Runs a callback for the answer process."""
        match operation, parts:
            case "callback", (int(key), tuple(args), dict(kwargs)) if 0 <= key < len(self.callbacks):
                return self.callbacks[key](*args, **kwargs)
        raise WireError("no callback")

    def describe(self, error):
        """An exception of a callback, for the answer process."""
        if isinstance(error, CheckFailed) and not isinstance(error, RemoteCheckFailed):
            self.failed = error
        return type(error).__name__, clean(str(error))

    def failure(self, report):
        """The exception that stands for one of the student's code. Nothing in the report is trusted."""
        match report:
            case {"types": [*types], "text": str(text), "line": line, "source": source, "kind": kind} if (
                types and all(isinstance(name, str) for name in types)
                and isinstance(line, int | None) and isinstance(source, str | None)
            ):  # fmt: skip
                types = tuple(clean(name, 60) for name in types[:20])
                if types[0] == "CheckFailed" and kind in _TITLES:
                    return RemoteCheckFailed(kind, clean(text))
                return RemoteError(types, clean(text), line, source and clean(source.strip(), 120))
        return WireError("no report of an exception")
