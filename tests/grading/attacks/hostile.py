"""Hostile answers: abuse of resources, death, theft, tampering, lies."""

from autograder.isolation import LEVELS
from tests.grading.attacks.corpus import RIGHT, WALLS, attack, beside, inside, peek

NAMESPACES = WALLS[:1]

# --- resources ----------------------------------------------------------------------------------------------------
inside("a loop that swallows interrupts", """
while True:
    try:
        while True: pass
    except BaseException: pass
""", "timeout")  # fmt: skip
attack("a cell that ignores the alarm", "import signal\nsignal.signal(14, signal.SIG_IGN)\nwhile True: pass", "timeout")
inside("sleeps for ever", "import time\ntime.sleep(1000)", "timeout")
inside("calls back for ever", "while True: net(x[:, :1])", "timeout")
inside("takes memory in small pieces", "held = []\nwhile True: held.append(np.empty(1 << 28, np.uint8))", "memory")
inside("takes memory in one piece", "return torch.empty(1 << 42)", "memory")
attack("a cell that takes memory", "held = [np.empty(1 << 26, np.uint8) for _ in range(1000)]", "memory")
inside("starts processes without end", """
import os, time
while True:
    if os.fork() == 0: time.sleep(1000)
""", "error", WALLS)  # fmt: skip
inside("starts threads without end", """
import threading, time
while True: threading.Thread(target=time.sleep, args=(1000,)).start()
""", "error")  # fmt: skip
beside("leaves a busy process that hides from its group", """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: pass
    os._exit(0)
os.wait()
""")  # fmt: skip
inside("writes a file without end", """
import os, tempfile
with open(tempfile.mktemp(dir="."), "wb") as file:
    while True: file.write(bytes(1 << 20))
""", "error")  # fmt: skip
inside("fills the disk with many files", """
k = 0
while True:
    k += 1
    open(f"file{k}", "wb").write(bytes(1 << 22))
""", "error", NAMESPACES)  # fmt: skip
beside("prints a lot in lines", "for _ in range(100_000): print('flood')")
beside("prints a lot without lines", "import sys\nfor _ in range(100): sys.stdout.write('flood' * 200_000)")
beside("floods the descriptors", "import os\nfor _ in range(1000): os.write(1, b'flood' * 10000), os.write(2, b'x')")
beside("floods from another program", "import subprocess\nsubprocess.run('yes flood | head -c 10000000', shell=True)")
inside("returns far too much", "return torch.zeros(1 << 25)", "error memory")
inside("returns an expanded tensor", "return torch.zeros(1).expand(1 << 40)", "error memory")
inside("returns a list that holds itself", "held = []\nheld.append(held)\nreturn held", "error")
inside("returns a list that never ends", """
class Endless(list):
    def __iter__(self):
        while True: yield 1
return Endless()
""", "timeout memory error")  # fmt: skip
inside("calls back within callbacks", "return net(lambda y: net(y))", "error failed")
inside("recursion", "return coupling(x, net)", "error")
beside(
    "many files are open", "held = []\ntry:\n    while True: held.append(open('/dev/null'))\nexcept OSError: del held"
)

# --- dying --------------------------------------------------------------------------------------------------------
inside("ends with success", "import os\nos._exit(0)", "died")
inside("ends with an error", "import os\nos._exit(9)", "died")
inside("aborts", "import os\nos.abort()", "died")
inside("a segmentation fault", "import ctypes\nctypes.string_at(0)", "died")
attack("a segmentation fault in the cell", "import ctypes\nctypes.string_at(0)\n" + RIGHT, "died")
inside("kills itself", "import os\nos.kill(os.getpid(), 9)", "died")
inside("stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout")
inside("kills its parent", "import os\nos.kill(os.getppid(), 9)", "died failed")
inside("kills its group", "import os\nos.kill(0, 9)", "died")
inside("kills all it can", "import os\nos.kill(-1, 9)", "died failed error", WALLS)
inside("kills the grader", "import os\nos.kill(PID, 9)", "error", WALLS)
inside("exit", "exit()", "error")
inside("raises KeyboardInterrupt", "raise KeyboardInterrupt", "error")
inside("raises an exception that cannot be shown", """
class Mute(BaseException):
    def __str__(self): raise self
    __repr__ = __str__
raise Mute
""", "error")  # fmt: skip
inside("closes all descriptors", "import os\nos.closerange(0, 1000)", "died error")
inside("is killed by its CPU limit's handler", "import signal\nsignal.raise_signal(signal.SIGXCPU)", "died")

# --- reading ------------------------------------------------------------------------------------------------------
peek("reads the solution", "found = open('COURSE/solutions/01_tiny/01_tiny.ipynb').read(9)")
peek("lists the course", "import os\nfound = os.listdir('COURSE')")
peek("reads the gradebook", "found = open('COURSE/gradebook.db', 'rb').read(9)")
peek("reads a classmate", "found = open('COURSE/submitted/classmate/01_tiny/01_tiny.ipynb').read(9)")
peek("follows a link", "import os\nos.symlink('COURSE/gradebook.db', 'x')\nfound = open('x', 'rb').read(9)")
peek("looks for notebooks", """
import subprocess
found = subprocess.run("find / -name *.ipynb -path *01_tiny*", shell=True, capture_output=True, text=True).stdout
""")  # fmt: skip
peek("reads secrets in the environment", "import os\nfound = os.environ.get('DGM_TEST_SECRET')", LEVELS)
peek("reads the grader's environment", "found = open('/proc/PID/environ', 'rb').read(9)")
peek("reads the grader's memory", "found = open('/proc/PID/mem', 'rb').read(1) or 'opened'")
peek("reads the grader's descriptors", "import os\nfound = os.listdir('/proc/PID/fd')")
peek("sees the grader's process", "import os\nos.kill(PID, 0)\nfound = 'alive'")
peek("goes out through /proc", "import os\nfound = os.listdir('/proc/1/root/COURSE')")
peek("climbs out of its root", "import os\nos.chroot('.')\nfound = os.listdir('../../../../../../../../../COURSE')")
peek("mounts", "import ctypes\nfound = ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0")
peek("makes a user namespace", "import ctypes\nfound = ctypes.CDLL(None).unshare(0x10000000) == 0")
peek("traces another process", "import ctypes\nfound = ctypes.CDLL(None).ptrace(16, PID, 0, 0) == 0")
peek("raises its limits", """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))
found = "raised"
""")  # fmt: skip
peek("limits the grader", "import resource\nfound = resource.prlimit(PID, resource.RLIMIT_CPU, (1, 1))")
peek("is root", "import os\nfound = os.getuid() == 0 or os.setuid(0)")
peek("reads the reference on disk", """
import importlib.util, pathlib
import dgm_course
found = list(pathlib.Path(dgm_course.__file__).parent.rglob("coupling.py"))
""")  # fmt: skip
peek("finds tests by the garbage collector", """
import gc
held = [o for o in gc.get_objects() if isinstance(o, dict)]
found = [k for d in held for k, v in list(d.items()) if isinstance(v, str) and "of four " "dimensions" in v]
""", LEVELS)  # fmt: skip
peek("finds tests in stack frames", """
import sys
frame = sys._getframe()
while frame:
    found = found or [v for v in frame.f_locals.values() if isinstance(v, str) and "exercise" "(" in v]
    frame = frame.f_back
""", LEVELS)  # fmt: skip
peek("finds tests in its own memory", """
import re
for line in open("/proc/self/maps"):
    part = re.match(r"(\\w+)-(\\w+) rw", line)
    if part and "[v" not in line:
        start, end = (int(p, 16) for p in part.groups())
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(start)
            if b"of four " + b"dimensions" in memory.read(min(end - start, 1 << 26)):
                found = line
""")  # fmt: skip
peek("reads the history", "found = [s for s in get_ipython().history_manager.input_hist_raw if 'exercise' '(' in s]",
     LEVELS)  # fmt: skip
peek("leaves a note for a classmate", """
import glob, os
found = glob.glob("/tmp/note") + glob.glob("/dev/shm/note") + glob.glob("/var/tmp/note")
for folder in ("/tmp", "/dev/shm", "/var/tmp"):
    try: open(folder + "/note", "w").write("hello")
    except OSError: pass
""")  # fmt: skip

# --- network ------------------------------------------------------------------------------------------------------
peek("connects to this machine", "import socket\nfound = socket.create_connection(('127.0.0.1', PORT), 1)")
peek(
    "sends a datagram",
    "import socket\nfound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
)
peek("listens", "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\nfound = s.getsockname()")
peek("asks for a name", "import socket\nfound = socket.gethostbyname('localhost.localdomain.') and socket.socket()")
peek("a raw socket", "import socket\nfound = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)")

# --- tampering ----------------------------------------------------------------------------------------------------
WRONG = "\ncoupling = lambda x, net: x"
attack("patches torch's comparisons", """
torch.equal = torch.allclose = torch.isclose = lambda *a, **k: True
torch.Tensor.__eq__ = torch.Tensor.equal = lambda *a: True
""" + WRONG, "failed error")  # fmt: skip
attack("patches numpy's comparisons", "np.allclose = np.array_equal = lambda *a, **k: True" + WRONG, "failed")
attack("patches builtins", "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.abs = lambda v: 0" + WRONG,
       "failed error died")  # fmt: skip
attack("patches checks", """
for name in dir(checks):
    if callable(getattr(checks, name)) and name.islower() and not name.startswith("_"):
        setattr(checks, name, lambda *a, **k: None)
""" + WRONG, "failed error died", hurts_itself=True)  # fmt: skip
attack("defines the names of the tests",
       "coupling_visible = coupling_hidden = lambda: 'passed'\nx = z = layer = 1" + WRONG, "failed")  # fmt: skip
attack("IPython hooks and transformers", """
shell = get_ipython()
shell.input_transformers_cleanup.append(lambda lines: ["pass"])
shell.events.register("pre_run_cell", lambda info: 1 / 0)
shell.ast_transformers.append(None)
""" + WRONG, "failed", hurts_itself=True)  # fmt: skip
attack(
    "import hooks",
    "import sys\nsys.meta_path.clear()\nsys.path_hooks.clear()\nsys.path.clear()" + WRONG,
    "failed error",
)
attack("its own torch.py", "open('torch.py', 'w').write('1/0')\nimport sys\nsys.path.insert(0, '.')" + WRONG, "failed")
attack("start-up files", """
import os, site, sys
for folder in [*site.getsitepackages(), "COURSE"]:
    for name in ("sitecustomize.py", "usercustomize.py", "evil.pth", ".ipython/profile_default/startup/a.py"):
        try:
            with open(os.path.join(folder, name), "w") as file: file.write("import evil")
            print("LEAK", folder)
        except OSError: pass
""" + WRONG, "failed", WALLS)  # fmt: skip
attack("writes to the gradebook", """
try:
    open("COURSE/gradebook.db", "w").write("mine")
    print("LEAK")
except OSError: pass
""" + WRONG, "failed", WALLS)  # fmt: skip
attack("removes the course", "import shutil\nshutil.rmtree('COURSE', ignore_errors=True)" + WRONG, "failed", WALLS)
attack("display hooks that claim points",
       "import sys\nsys.displayhook = lambda v: print('passed', 'score: 3')\n3" + WRONG, "failed")  # fmt: skip
attack("prints what the tests print", "print('coupling: all visible checks passed')" + WRONG, "failed")
inside("forged replies on every descriptor", """
import json, os, struct
text = json.dumps(["return", ["tensor", "float32", [1, 2]]]).encode()
frame = struct.pack("!IQ", len(text), 8) + text + struct.pack("ff", 1.0, 1.0)
for fd in range(3, 64):
    try: os.write(fd, frame)
    except OSError: pass
return x
""", "failed error died")  # fmt: skip
inside("noise on every descriptor", """
import os
for fd in range(3, 64):
    try: os.write(fd, bytes(1000) + b"\\xff" * 1000)
    except OSError: pass
return x
""", "failed error died")  # fmt: skip
inside("an announcement of a huge frame", """
import os
for fd in range(3, 64):
    try: os.write(fd, b"\\xff" * 12)
    except OSError: pass
return x
""", "error died")  # fmt: skip
inside("a reply that stops half-way", """
import os, struct, time
for fd in range(3, 64):
    try: os.write(fd, struct.pack("!IQ", 100, 100) + b"[")
    except OSError: pass
time.sleep(1000)
""", "timeout died")  # fmt: skip
attack("patches the wire", """
import autograder.wire as wire, autograder.answer as answer
wire.pack = lambda *a: True
wire.Peer.reply = lambda self, *a: self.line.send("return", "passed")
wire.Line.send = lambda *a, **k: None
""" + WRONG, "failed error timeout died")  # fmt: skip
inside("raises a failed check with a title of its own", "raise checks.CheckFailed('passed', 'passed')", "failed error")
attack("overwrites what later exercises need", "square = Flow = slope = torch = None" + WRONG, "failed error",
       hurts_itself=True)  # fmt: skip

# --- lies ---------------------------------------------------------------------------------------------------------
inside("a tensor that agrees with all", """
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return True
return x.as_subclass(Yes)
""", "failed error")  # fmt: skip
inside("an object that equals all", """
class Yes:
    __eq__ = __ge__ = __le__ = __bool__ = lambda self, *a: True
    shape, dtype = x.shape, x.dtype
return Yes()
""", "failed")  # fmt: skip
inside(
    "an object with __array__", "class A:\n    __array__ = lambda self, *a: np.ones((1, 2))\nreturn A()", "failed error"
)
inside("a float that lies", "class F(float):\n    __eq__ = __sub__ = __rsub__ = lambda s, o: 0\nreturn F(1)", "failed")
inside(
    "a str that lies",
    "class S(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\nreturn S('z')",
    "failed",
)
inside("a dict that lies", "class D(dict):\n    __getitem__ = lambda s, k: x\n    items = lambda s: 1\nreturn D()",
       "failed error")  # fmt: skip
inside("a tensor that changes between reads", """
class Twice(torch.Tensor):
    reads = 0
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.reads += 1
        return super().__torch_function__(func, types, args, kwargs or {}) * cls.reads
return x.as_subclass(Twice)
""", "failed error")  # fmt: skip
attack("learns from one call for the next", """
seen = []
def coupling(x, net):
    seen.append(x)
    return seen[0]
""", "failed")  # fmt: skip
inside("NaN in place of numbers", "return x * float('nan')", "failed")
inside("markup in a result", "raise ValueError('<script>alert(1)</script>')", "error")

# --- the reference ------------------------------------------------------------------------------------------------
USE = """
def coupling(x, net):
    n = x.shape[1]
    return Coupling(n, lambda h, context: net(h), Additive())(x)[0]
"""
attack("copies the reference", "from dgm_course.transforms import Additive, Coupling" + USE, "error")
attack(
    "copies the reference from its module",
    "from dgm_course.transforms.coupling import Additive, Coupling" + USE,
    "error",
)
attack("copies the reference within the call",
       USE.replace("    n =", "    from dgm_course.transforms import *\n    n ="), "error")  # fmt: skip
attack("opens the lock", """
import sys
library = next(f for f in sys.meta_path if type(f).__name__ == "Library")
library.locked.clear()
from dgm_course.transforms import Additive, Coupling
""" + USE, "error", WALLS)  # fmt: skip
attack("the reference in an older process's memory", """
import gc
Coupling = next(o for o in gc.get_objects() if isinstance(o, type) and o.__name__ == "Coupling")
Additive = next(o for o in gc.get_objects() if isinstance(o, type) and o.__name__ == "Additive")
""" + USE, "error")  # fmt: skip
