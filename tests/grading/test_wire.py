"""Only plain data crosses the line, and what comes is checked to the last byte."""

import json
import socket
import time
from collections import OrderedDict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
import torch

from autograder import wire
from autograder.wire import HEAD, Closed, Late, Line, WireError


def there_and_back(value, **kwargs):
    """Sends a value through a socket pair."""
    a, b = socket.socketpair()
    with a, b:
        Line(a, **kwargs).send("value", value)
        return Line(b).receive_plain()[1]


PLAIN = [
    None, True, 3, -1.5, 10**30, "héllo \ud800", float("inf"), 2 + 3j, [1, (2, [])], {"a": {1: (2.0,)}, (1, "b"): None},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    back = there_and_back(value)
    assert back == value and type(back) is type(value)


def test_nan_stays_nan():
    assert np.isnan(there_and_back(float("nan")))


@pytest.mark.parametrize("dtype", [*wire._TORCH.values()], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_come_back_equal(dtype, shape):
    value = (torch.arange(6).reshape(2, 3) if shape == (2, 3) else torch.ones(shape)).to(dtype)
    back = there_and_back([value, "after"])[0]
    assert back.dtype == dtype and back.shape == shape and torch.equal(back, value)


@pytest.mark.parametrize("dtype", [*wire._NUMPY.values(), np.dtype(">f4")], ids=str)
def test_arrays_come_back_equal(dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    back = there_and_back(value)
    assert back.dtype == dtype.newbyteorder("=") and np.array_equal(back, value)


def test_views_gradients_and_conjugates_become_plain():
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    back = there_and_back(weight.t()[1:])
    assert type(back) is torch.Tensor and not back.requires_grad
    assert torch.equal(back, weight.t()[1:])
    z = torch.tensor([1 + 2j])
    assert torch.equal(there_and_back(z.conj()), torch.tensor([1 - 2j]))


def test_subclasses_are_reduced():
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return super().__torch_function__(func, types, args, kwargs or {})

    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    point, level = namedtuple("point", "x y"), IntEnum("level", "low high")
    liar = torch.ones(2).as_subclass(Liar)
    back = there_and_back(
        [liar, Text("a"), point(1, 2), level.high, OrderedDict(b=1), np.float64(0.5), torch.Size([1])]
    )
    assert [type(v) for v in back] == [torch.Tensor, str, tuple, int, dict, float, tuple]
    assert back[1] != "b"


@pytest.mark.parametrize("value", [{1, 2}, object(), slice(1), print, np.array(["a"]), torch.ones(2).to_sparse()])
def test_everything_else_is_refused_without_a_handle(value):
    with pytest.raises(TypeError, match="plain data"):
        there_and_back(value)


def test_cycles_and_deep_nesting_are_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(WireError, match="nested"):
        there_and_back(loop)


def test_too_large_is_refused_by_the_sender_and_by_the_receiver():
    with pytest.raises(WireError, match="too large"):
        there_and_back(torch.zeros(1000), limit=1000)
    a, b = socket.socketpair()
    with a, b:
        a.sendall(HEAD.pack(10, 1 << 60))
        with pytest.raises(WireError, match="too large"):
            Line(b).receive()


@pytest.mark.parametrize(
    "tree",
    [
        ["tensor", "float32", [3]],  # more than the eight bytes that came
        ["tensor", "float32", [-1]],
        ["tensor", "float32", [True]],
        ["tensor", "float32", "2"],
        ["tensor", "float32", [1] * 30],
        ["tensor", ["float32"], [2]],
        ["tensor", "object", [1]],
        ["array", "object", [1]],
        ["array", "O", [1]],
        ["dict", [1]],
        ["dict", [["list"], 1]],
        ["complex", "1", "2"],
        ["ref", "handle", 0],
        ["pickle", "gASVBwAAAAAAAABdlC4="],
        [],
        {},
    ],
    ids=str,
)
def test_forged_trees_are_refused(tree):
    a, b = socket.socketpair()
    text = json.dumps(["return", tree]).encode()
    with a, b:
        a.sendall(HEAD.pack(len(text), 8) + bytes(8) + text)
        with pytest.raises(WireError):
            Line(b).receive_plain()


@pytest.mark.parametrize("text", [b"{", b"[1, 2]", b"[" * 100_000, b"[1]", b'["a", ' + b"9" * 10_000 + b"]", b"\xff"])
def test_forged_frames_are_refused(text):
    a, b = socket.socketpair()
    a.settimeout(5)
    with a, b:
        a.sendall(HEAD.pack(len(text), 0) + text)
        with pytest.raises(WireError):
            Line(b).receive_plain()


def test_bytes_that_are_no_bool_do_not_make_a_broken_tensor():
    a, b = socket.socketpair()
    text = json.dumps(["return", ["tensor", "bool", [2]]]).encode()
    with a, b:
        a.sendall(HEAD.pack(len(text), 2) + b"\x02\x00" + text)
        assert Line(b).receive_plain()[1].tolist() == [True, False]


def test_silence_and_hanging_up_are_told_apart():
    a, b = socket.socketpair()
    line = Line(b)
    line.deadline = time.monotonic() + 0.05
    with pytest.raises(Late):
        line.receive()
    line.deadline = None
    a.sendall(b"\x00")
    a.close()
    with pytest.raises(Closed):
        line.receive()
    b.close()


def test_arrays_of_one_frame_can_be_written_to_and_share_no_memory():
    values = [torch.zeros(3, dtype=torch.bool), torch.zeros(5), np.zeros(2), torch.zeros(20_000)]
    came = there_and_back(values)
    for k in range(len(came)):
        came[k][:] = k + 1
    assert [float(x[0]) for x in came] == [1, 2, 3, 4]
    assert all((x == x[0]).all() for x in came)
