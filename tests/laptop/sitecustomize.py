"""Put on PYTHONPATH: our packages find nothing of Python that POSIX systems alone have, as on Windows.

Libraries still find it, because they are made for the system on which this test runs.
"""

import builtins
import importlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

from names import NO_MODULES, NO_NAMES

OURS = frozenset({"common", "fedlmg_client", "fedlmg_server"})


class Portable(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._real = importlib.import_module(name)

    def __getattr__(self, name: str) -> Any:
        if name in NO_NAMES[self.__name__]:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' on this laptop")
        return getattr(self._real, name)


PORTABLE = {name: Portable(name) for name in NO_NAMES}
real_import = builtins.__import__


def import_on_a_laptop(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> types.ModuleType:
    module = real_import(name, globals, locals, fromlist or (), level)
    importer = str((globals or {}).get("__package__") or (globals or {}).get("__name__") or "")
    if level or importer.split(".")[0] not in OURS:
        return module
    if name.split(".")[0] in NO_MODULES:
        raise ModuleNotFoundError(f"No module named '{name}' on this laptop")
    return PORTABLE.get(module.__name__, module)


builtins.__import__ = import_on_a_laptop
