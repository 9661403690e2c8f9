"""The interface of an instrumentor: what turns the calls of a third-party library into spans."""

from typing import Protocol

from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.tracing.tracer import Tracer


class Instrumentor(Protocol):
    """Patches one library, in place, for all its clients of this process, existing ones included.

    The suite in `tests/contracts/instrumentor_contract.py` checks every registered instrumentor.
    """

    name: str
    """Its key in the registry, used in `auto_instrument(names=["anthropic"])`."""
    module: str
    """The top-level module of the library. The instrumentor takes effect when it is imported."""

    def is_available(self) -> bool:
        """Whether a version of the library is installed that can be traced. Does not import it."""
        ...

    def instrument(self, tracer: Tracer, options: InstrumentationOptions) -> None:
        """Patch the library, which is imported if it was not. Another call only changes tracer and options.

        What the library returns, raises and accepts stays the same, to the identity of the objects. If the library lacks a name
        that is patched, only what that name provides is lost, and one log line reports it. Raises ImportError if nothing can be
        traced; nothing is patched then.
        """
        ...

    def uninstrument(self) -> None:
        """Restore the originals. Open spans end as they would have. Without effect if nothing is patched."""
        ...
