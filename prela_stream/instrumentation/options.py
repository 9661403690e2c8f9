"""What instrumentors may record."""

import msgspec


class InstrumentationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How instrumented calls are recorded. The arguments of `auto_instrument()`; not a section of the settings file."""

    capture_content: bool = True
    """Record prompts, answers, and tools with their arguments. If off, tokens, latency, stop reasons and errors stay."""
