"""The line between the test process and the answer process: plain data, framed, never pickled.

A frame is two lengths, a JSON text and the raw bytes of the arrays in it:

    uint32 JSON bytes | uint64 array bytes | array bytes, one array after the other | JSON [operation, tree]

In the tree, `None`, `bool`, `int`, `float` and `str` stand for themselves. Everything else is a list whose first entry
is its kind: `["list", ...]`, `["tuple", ...]`, `["dict", [key, value], ...]`, `["complex", re, im]`,
`["tensor", dtype, shape]`, `["array", dtype, shape]`, and `["ref", ...]` for what stays on its own side: a callback, a
handle, a name.
"""

import json
import math
import random
import socket
import struct
import time

import numpy as np
import torch

HEAD = struct.Struct("!IQ")
MAX_JSON = 8 << 20  # bytes
MAX_ARRAYS = 128 << 20  # bytes
LARGE = 64 << 10  # bytes of arrays that are sent without gathering them first
MAX_DEPTH = 40  # of nested containers, and of calls inside callbacks inside calls
MAX_TEXT = 2000  # characters of a message that may travel

_PLAIN = (bool, int, float, str)
_FLOATS = ["float16", "float32", "float64", "complex64", "complex128"]
_NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", *_FLOATS]
_TORCH = {name: getattr(torch, name) for name in [*_NAMES, "bfloat16"]}
_NUMPY = {name: np.dtype(name) for name in [*_NAMES, "uint16", "uint32", "uint64"]}
_TORCH_NAMES = {dtype: name for name, dtype in _TORCH.items()}


class WireError(Exception):
    """What came is no frame, is too large, or holds something that is not plain data."""


class Lost(BaseException):
    """The conversation is over. Not an Exception, so that no test cell takes it for an error of a student's code."""


class Closed(Lost):
    """The other end is gone."""


class Late(Lost):
    """The deadline has passed."""


def clean(text, limit=MAX_TEXT):
    """`text` cut to `limit` characters, without characters that a file in UTF-8 cannot hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[:limit] + " [cut]"


def seed():
    """Seeds what both processes draw from, so that grading twice gives the same marks."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` also wakes up every kind of GPU


def pack(value, refer, arrays, depth=0):
    """Turns a value into a JSON tree. Subclasses are reduced to the plain type below them.

    Args:
        value: what is to be sent.
        refer: called with everything that is not plain data; returns the parts of a reference, or raises TypeError.
        arrays: `Outgoing` that takes the bytes of the arrays, in order.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"containers nested more than {MAX_DEPTH} deep")
    if value is None or type(value) in _PLAIN:
        return value
    for kind in _PLAIN:
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.dtype in _TORCH_NAMES:
        arrays.claim(value.numel() * value.element_size())
        plain = value.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg().contiguous()
        bits = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain  # numpy has no bfloat16
        arrays.parts.append(bits.numpy().reshape(-1).view(np.uint8).data)
        return ["tensor", _TORCH_NAMES[value.dtype], list(plain.shape)]
    if isinstance(value, np.ndarray | np.generic) and value.dtype.newbyteorder("=").name in _NUMPY:
        arrays.claim(value.size * value.itemsize)
        plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("=")).reshape(value.shape)
        arrays.parts.append(plain.reshape(-1).view(np.uint8).data)
        return ["array", plain.dtype.name, list(plain.shape)]
    if isinstance(value, list | tuple):
        name = "tuple" if isinstance(value, tuple) else "list"
        return [name, *(pack(v, refer, arrays, depth + 1) for v in value)]
    if isinstance(value, dict):
        pairs = ([pack(k, refer, arrays, depth + 1), pack(v, refer, arrays, depth + 1)] for k, v in value.items())
        return ["dict", *pairs]
    return ["ref", *refer(value)]


def unpack(tree, resolve, arrays, depth=0):
    """The way back: checks every part of the tree and builds the value.

    Args:
        tree: what `json.loads` gave.
        resolve: called with the parts of a reference.
        arrays: `Arrays` that hold the bytes.

    Raises:
        WireError: if the tree is not what `pack` makes.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if depth > MAX_DEPTH or not isinstance(tree, list) or not tree:
        raise WireError(f"no plain data: {str(tree)[:80]}")
    kind, parts = tree[0], tree[1:]
    if kind in ("list", "tuple"):
        values = [unpack(part, resolve, arrays, depth + 1) for part in parts]
        return tuple(values) if kind == "tuple" else values
    if kind == "dict" and all(isinstance(pair, list) and len(pair) == 2 for pair in parts):
        try:
            return {unpack(k, resolve, arrays, depth + 1): unpack(v, resolve, arrays, depth + 1) for k, v in parts}
        except TypeError:
            raise WireError("a key of a dict is not a number, string or tuple of these") from None
    if kind == "complex" and len(parts) == 2 and all(isinstance(part, float) for part in parts):
        return complex(*parts)
    if kind in ("tensor", "array") and len(parts) == 2:
        return arrays.take(kind, *parts)
    if kind == "ref":
        return resolve(parts)
    raise WireError(f"no plain data: {str(tree)[:80]}")


class Outgoing:
    """The array bytes of a frame in the making."""

    def __init__(self, limit):
        self.parts, self.size, self.limit = [], 0, limit

    def claim(self, size):
        """Asks for room, before anything is copied."""
        self.size += size
        if self.size > self.limit:
            raise WireError(f"too large: {self.size:,} bytes of arrays, allowed are {self.limit:,}")


class Arrays:
    """The array bytes of one frame, a writable `memoryview`, handed out in order."""

    def __init__(self, data):
        self.data, self.start = data, 0

    def take(self, kind, dtype, shape):
        """The next array, of kind "tensor" or "array". It may be written to, and shares memory with no other."""
        table = _TORCH if kind == "tensor" else _NUMPY
        if not isinstance(dtype, str) or dtype not in table:
            raise WireError(f"dtype {str(dtype)[:40]} cannot be sent")
        if (
            not isinstance(shape, list)
            or len(shape) > 16
            or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
        ):
            raise WireError(f"no shape: {str(shape)[:80]}")
        size = math.prod(shape) * table[dtype].itemsize
        if size > len(self.data) - self.start:
            raise WireError("fewer array bytes than the shapes ask for")
        data = self.data[self.start : self.start + size]
        if self.start % 16:  # no place for every dtype to start
            data = bytearray(data)
        self.start += size
        raw = {"bool": "uint8", "bfloat16": "int16"}.get(dtype, dtype)
        value = np.frombuffer(data, raw).reshape(shape)
        value = value.astype(bool) if dtype == "bool" else value
        if kind == "array":
            return value
        value = torch.from_numpy(value)
        return value.view(torch.bfloat16) if dtype == "bfloat16" else value


class Line:
    """One end of a socket pair that carries frames.

    Attributes:
        deadline: `time.monotonic()` after which waiting raises `Late`, or None.
        limit: the largest number of array bytes in a frame, both ways.
    """

    def __init__(self, sock, limit=MAX_ARRAYS):
        self.sock, self.limit, self.deadline = sock, limit, None

    def send(self, operation, value=None, refer=None):
        """Sends one frame.

        Raises:
            WireError: if the value cannot be sent; then nothing was sent.
            Closed, Late: if the other end is gone, or the deadline has passed.
        """
        arrays = Outgoing(self.limit)
        try:
            text = json.dumps([operation, pack(value, refer or _no_reference, arrays)]).encode()
        except (ValueError, RecursionError) as error:
            raise WireError(f"cannot be sent: {error}") from None
        if len(text) > MAX_JSON:
            raise WireError(f"too large: {len(text):,} bytes beside the arrays, allowed are {MAX_JSON:,}")
        size = sum(part.nbytes for part in arrays.parts)
        frame = [HEAD.pack(len(text), size), *arrays.parts, text]
        for part in frame if size > LARGE else [b"".join(frame)]:
            self._timed(self.sock.sendall, part)

    def receive(self):
        """Waits for a frame and returns `(operation, tree, arrays)`; the tree is not yet looked at."""
        size, n_bytes = HEAD.unpack(self._exactly(HEAD.size))
        if size > MAX_JSON or n_bytes > self.limit:
            raise WireError(f"too large: {n_bytes:,} bytes of arrays and {size:,} of the rest, "
                            f"allowed are {self.limit:,} and {MAX_JSON:,}")  # fmt: skip
        data = memoryview(self._exactly(n_bytes + size))
        try:
            operation, tree = json.loads(bytes(data[n_bytes:]))
        except (ValueError, TypeError, RecursionError) as error:
            raise WireError(f"no frame: {type(error).__name__}") from None
        if not isinstance(operation, str):
            raise WireError("no frame: the operation is not a string")
        return operation, tree, Arrays(data[:n_bytes])

    def receive_plain(self):
        """Waits for a frame that holds nothing but plain data, and returns `(operation, value)`."""
        operation, tree, arrays = self.receive()
        return operation, unpack(tree, _no_resolution, arrays)

    def send_fd(self, fd):
        """Sends an open file descriptor after a frame that announced it."""
        self._timed(lambda: socket.send_fds(self.sock, [b"+"], [fd]))

    def receive_fd(self):
        """Takes the file descriptor that the last frame announced."""
        _, fds, _, _ = socket.recv_fds(self.sock, 1, 1)
        if not fds:
            raise Closed("no file descriptor came")
        return fds[0]

    def _exactly(self, size):
        data = bytearray(size)
        view, start = memoryview(data), 0
        while start < size:
            n = self._timed(self.sock.recv_into, view[start:])
            if n == 0:
                raise Closed("the other end is gone")
            start += n
        return data

    def _timed(self, call, *args):
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Late("no answer in time")
        if left is not None or self.sock.gettimeout() is not None:
            self.sock.settimeout(left)
        try:
            return call(*args)
        except TimeoutError:
            raise Late("no answer in time") from None
        except OSError:
            raise Closed("the other end is gone") from None


class Peer:
    """One end of a conversation in which each side may ask while the other waits for its answer.

    A subclass says what it refers to (`refer`, `resolve`), what it does when asked (`perform`), how an exception is
    described (`describe`), which ones (`caught`), and what is raised when the other side describes one (`failure`).
    """

    caught = Exception

    def __init__(self, line):
        self.line, self.depth = line, 0

    def ask(self, operation, *parts):
        """Sends a question, answers those that come back meanwhile, and returns the reply."""
        self.line.send(operation, parts, self.refer)
        while True:
            operation, tree, arrays = self.line.receive()
            if operation == "return":
                return unpack(tree, self.resolve, arrays)
            if operation == "raise":
                raise self.failure(unpack(tree, self.resolve, arrays))
            self.reply(operation, tree, arrays)

    def reply(self, operation, tree, arrays):
        """Answers one question with what `perform` returns or raises."""
        if self.depth > MAX_DEPTH:
            raise WireError(f"calls nested more than {MAX_DEPTH} deep")
        self.depth += 1
        try:
            self.line.send("return", self.perform(operation, unpack(tree, self.resolve, arrays)), self.refer)
        except Lost:
            raise
        except self.caught as error:
            self.line.send("raise", self.describe(error))
        finally:
            self.depth -= 1


def _no_reference(value):
    raise TypeError(f"only plain data can be sent here, not {type(value).__name__}")


def _no_resolution(parts):
    raise WireError("only plain data can be sent here, not a reference")
