"""What instrumentors may record. Imports nothing heavy: configuration is made of these Structs."""

import msgspec


class InstrumentationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How instrumented calls are recorded."""

    names: tuple[str, ...] | None = None
    """Instrumentors to switch on, by name; None: every one."""
    capture_content: bool = True
    """Record prompts, answers, and tools with their arguments. Off: tokens, latency, stop reasons and errors stay."""
