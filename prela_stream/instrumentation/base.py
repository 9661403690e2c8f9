"""The seam of an instrumentor: what makes the calls of someone else's library into spans."""

from typing import Any, Protocol

from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.tracing.tracer import Tracer


class Instrumentor(Protocol):
    """Patches one library, in place, for all its clients of this process, those made before included."""

    name: str
    """What people call it in `auto_instrument(["anthropic"])`."""
    module: str
    """The top-level module whose import makes it take effect."""

    def is_available(self) -> bool:
        """Whether the library is installed. Does not import it."""
        ...

    def instrument(self, tracer: Tracer, options: InstrumentationOptions) -> None:
        """Patch the library, which is imported if it was not. Called again it only changes tracer and options.

        What the library returns, raises and accepts stays the same, to the identity of the objects. Raises ImportError if the
        library is not there or has not the places that are patched; nothing is patched then.
        """
        ...

    def uninstrument(self) -> None:
        """Put the originals back. Spans that are open end as they would have. Without effect if nothing is patched."""
        ...


class Patch:
    """One replaced attribute of a class, put back only if nobody patched on top of it meanwhile."""

    def __init__(self, owner: type, name: str, replacement: Any) -> None:
        self._owner = owner
        self._name = name
        self._original = owner.__dict__[name]
        self._replacement = replacement
        setattr(owner, name, replacement)

    def restore(self) -> bool:
        """Put the original back; False if something else stands there now, which then goes on calling the replacement."""
        if self._owner.__dict__.get(self._name) is not self._replacement:
            return False
        setattr(self._owner, self._name, self._original)
        return True
