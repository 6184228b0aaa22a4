"""The reference lock: answers import `dgm_course` from memory, some modules only once they give nothing away.

The answer cell of an exercise names what would answer it, in the metadata of the solution notebook:

    "dgm": {"locked": ["dgm_course.transforms.coupling"]}

A locked module is nowhere in the answer process, neither on disk nor in memory. A stand-in takes its place, so that
`from dgm_course import flows` works although `flows` imports from it; using anything of the stand-in raises an
ImportError that says why. When the tests of all exercises that lock the module are over, the test process sends its
source, and whoever uses a stand-in gets the real thing.
"""

import functools
import importlib
import importlib.util
import sys
import types
from importlib.abc import ExecutionLoader, MetaPathFinder
from pathlib import Path


@functools.cache
def sources(left_out=frozenset(), package="dgm_course"):
    """name -> `(source, path, whether it is a package)` of the modules of a package on disk.

    Those left out are not read, so that nothing of them is in the memory of the process.
    """
    folder = Path(importlib.util.find_spec(package).origin).parent
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if name not in left_out:
            found[name] = path.read_text("utf-8"), str(path), is_package
    return found


class Library(MetaPathFinder, ExecutionLoader):
    """Imports from memory.

    Args:
        served: what `sources` returns, without the locked modules.
        locked: names of the locked modules.
    """

    def __init__(self, served, locked):
        self.served, self.locked = dict(served), set(locked)

    def find_spec(self, name, path=None, target=None):
        """The module, or its stand-in."""
        if name in self.served:
            return importlib.util.spec_from_loader(name, self)
        return importlib.util.spec_from_loader(name, StandInLoader(self)) if name in self.locked else None

    def get_filename(self, name):
        """Where the module was."""
        return self.served[name][1]

    def get_source(self, name):
        """The module's source."""
        return self.served[name][0]

    def is_package(self, name):
        """Whether the module has submodules."""
        return self.served[name][2]

    def unlock(self, served):
        """Adds modules that were locked, and takes their stand-ins away."""
        self.served |= {name: tuple(parts) for name, parts in served.items()}
        self.locked -= served.keys()
        for name in served:
            if isinstance(sys.modules.get(name), StandInModule):
                del sys.modules[name]  # whoever uses a stand-in from now on imports the module itself


class StandInLoader:
    """Makes stand-ins."""

    def __init__(self, library):
        self.importer = library

    def create_module(self, spec):
        """A module whose every name is a stand-in."""
        return StandInModule(spec.name, self.importer)

    def exec_module(self, module):
        """Nothing to run."""


class StandInModule(types.ModuleType):
    """In place of a locked module."""

    def __init__(self, name, library):
        super().__init__(name, "Locked.")
        self._library = library

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ not in self._library.locked:
            return getattr(importlib.import_module(self.__name__), name)
        return StandIn(self.__name__, name, self._library)


class StandIn:
    """In place of a name of a locked module. Once that is open, it does what the real thing does."""

    def __init__(self, module, name, library):
        self._module, self._name, self._library = module, name, library

    def _real(self):
        if self._module in self._library.locked:
            raise ImportError(f"{self._module}.{self._name} is locked until the exercises that ask for it are graded")
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *args, **kwargs):
        return self._real()(*args, **kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, value):
        return isinstance(value, self._real())

    def __mro_entries__(self, bases):
        return (self._real(),)
