"""Settings of what spans may carry. Imports nothing heavy."""

import msgspec


class PrivacyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes by name. `.*` at the end of a name stands for whatever follows. In the environment: names with commas."""

    content_attributes: tuple[str, ...] = ()
    """Further names that are content, and so not sent where `capture_content` is off."""
    withhold: tuple[str, ...] = ()
    """Names that are never sent."""
