"""Arrays of numbers as numpy, torch, jax and others have them: their type and shape, or the numbers of a small one.

Arrays are recognised by what they have, a `shape` and a `dtype`, so no library is imported.
"""

import array
from typing import Any, Final

from prela_stream.model.object_fields import static

_IN_MEMORY: Final = frozenset({"numpy", "pandas"})
_FEW: Final = 64
"""Numbers of a small array, which are worth reading."""


_LONGEST: Final = 40
"""Characters of a dtype; that of a structured array can be long."""


def is_array(value: object) -> bool:
    """Whether a value is an array."""
    kind = type(value)
    return issubclass(kind, array.array) or (static(kind, "shape") is not None and static(kind, "dtype") is not None)


def items_of_array(value: Any) -> object | None:
    """The elements of a small array in main memory, in nested lists, or a scalar; None for any other array.

    The numbers of a tensor may be on another device, or still have to be computed, so they are not read.
    """
    if isinstance(value, array.array):
        return value.tolist() if len(value) <= _FEW else None
    if type(value).__module__.partition(".")[0] not in _IN_MEMORY or value.size > _FEW:
        return None
    items: object = value.tolist()
    return str(items) if type(items) is type(value) else items  # a number that Python has no type for


def array_note(value: Any) -> str:
    """Type and shape of an array."""
    name = type(value).__name__
    if isinstance(value, array.array):
        return f"[{name} {value.typecode}, shape ({len(value)},)]"
    dtype = str(value.dtype)
    return f"[{name} {dtype if len(dtype) <= _LONGEST else f'{dtype[:_LONGEST]}…'}, shape {tuple(value.shape)}]"
