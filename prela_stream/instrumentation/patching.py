"""Replaces attributes of classes of third-party libraries, and restores them."""

from typing import Any


class Patch:
    """One replaced attribute of a class. It is restored only if no other code has replaced it since."""

    def __init__(self, owner: type, name: str, replacement: Any) -> None:
        self._owner = owner
        self._name = name
        self._original = owner.__dict__[name]
        self._replacement = replacement
        setattr(owner, name, replacement)

    def replaces(self, owner: type, name: str) -> bool:
        """Whether this patch replaces that attribute."""
        return self._owner is owner and self._name == name

    def restore(self) -> bool:
        """Restore the original. Returns False if another object has been set since; it may still call the replacement."""
        if self._owner.__dict__.get(self._name) is not self._replacement:
            return False
        setattr(self._owner, self._name, self._original)
        return True
