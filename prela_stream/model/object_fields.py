"""The fields that an object declares: dataclasses, attrs classes, pydantic models, Structs, named tuples, namespaces.

Only objects with declared fields are read by their fields. The `__dict__` of any other object may hold a client with its keys, a
pool, or half of the program, so such an object is only shown by its text form.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

HIDDEN: Final = "[hidden: repr=False]"
"""Value of a field that its class keeps out of `repr()`, which is how classes hide keys and passwords."""
EXCLUDED: Final = "[hidden: exclude=True]"
"""Value of a field that its pydantic model keeps out of `model_dump()`."""

FieldReader = tuple[Any, Callable[[], object]]
"""Name of a field (or key of a mapping), and a function that reads its value. It may run the application's code, and raise."""

_mro: Final = type.__dict__["__mro__"].__get__
_namespace: Final = type.__dict__["__dict__"].__get__
_MISSING: Final = object()


def static(kind: type, name: str) -> Any:
    """An attribute of a class, or None. It runs no code of the class or of its metaclass."""
    for base in _mro(kind):
        found = _namespace(base).get(name, _MISSING)
        if found is not _MISSING:
            return found
    return None


def declared_fields(value: object) -> list[FieldReader] | None:
    """The fields of an object in the order of their declaration; None if its class declares none.

    A field that was never set is left out. A field that the class hides reads as `HIDDEN` or `EXCLUDED`.
    """
    kind = type(value)
    if issubclass(kind, tuple):
        names = static(kind, "_fields")
        return _tuple_fields(value, names) if isinstance(names, tuple) else None
    if issubclass(kind, msgspec.Struct):
        return _struct_fields(value, kind)
    pydantic = static(kind, "__pydantic_fields__") or static(kind, "model_fields") or static(kind, "__fields__")
    if isinstance(pydantic, dict) and static(kind, "__fields_set__") is not None:
        return _pydantic_fields(value, pydantic)
    if isinstance(static(kind, "__dataclass_fields__"), dict):
        return _object_fields(value, ((field.name, bool(field.repr)) for field in dataclasses.fields(kind)))  # type: ignore[arg-type]
    if isinstance(attrs := static(kind, "__attrs_attrs__"), tuple):
        return _object_fields(value, ((field.name, field.repr is not False) for field in attrs))
    if issubclass(kind, types.SimpleNamespace) or (kind.__module__, kind.__name__) == ("argparse", "Namespace"):
        return readers(list(_dict_of(value).items()))
    return None


def _tuple_fields(value: Any, names: tuple[Any, ...]) -> list[FieldReader]:
    return readers(zip(names, tuple.__iter__(value), strict=False))


def _struct_fields(value: Any, kind: Any) -> list[FieldReader]:
    config = kind.__struct_config__
    found: list[FieldReader] = [] if config.tag is None else readers([(config.tag_field, config.tag)])
    for name, written in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        if getattr(value, name, msgspec.UNSET) is not msgspec.UNSET:
            found.append((written, partial(getattr, value, name)))
    return found


def _pydantic_fields(value: object, declared: Mapping[str, Any]) -> list[FieldReader]:
    """The values as they are stored: `getattr` may run properties, or load relations from a database."""
    stored = _dict_of(value)
    if static(type(value), "__pydantic_root_model__") is True:
        return [("root", partial(stored.__getitem__, "root"))]
    found: list[FieldReader] = []
    for name, field in declared.items():
        info = getattr(field, "field_info", field)  # pydantic 1 wraps it
        if name not in stored:
            continue
        if getattr(info, "exclude", None) is True:
            found += readers([(name, EXCLUDED)])
        elif getattr(info, "repr", True) is False:
            found += readers([(name, HIDDEN)])
        else:
            found.append((name, partial(stored.__getitem__, name)))
    extra = getattr(value, "__pydantic_extra__", None)
    if extra is None:  # pydantic 1 stores extra values beside the fields
        extra = {name: part for name, part in stored.items() if name not in declared}
        extra = extra if static(type(value), "__pydantic_fields__") is None else {}
    return [*found, *readers(list(extra.items()))]


def _object_fields(value: object, fields: Iterable[tuple[str, bool]]) -> list[FieldReader]:
    found: list[FieldReader] = []
    for name, shown in fields:
        if not shown:
            found += readers([(name, HIDDEN)])
        elif inspect.getattr_static(value, name, _MISSING) is not _MISSING and not _is_unset_slot(value, name):
            found.append((name, partial(getattr, value, name)))
    return found


def _is_unset_slot(value: object, name: str) -> bool:
    descriptor = static(type(value), name)
    if not isinstance(descriptor, types.MemberDescriptorType):
        return False
    try:
        descriptor.__get__(value)
    except AttributeError:
        return True
    return False


def readers(pairs: Iterable[tuple[Any, object]]) -> list[FieldReader]:
    """Fields whose values are known."""
    return [(name, partial(_same, value)) for name, value in pairs]


def _same(value: object) -> object:
    return value


def _dict_of(value: object) -> dict[str, Any]:
    found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    return found
