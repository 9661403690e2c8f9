"""Settings of what spans may contain. Imports nothing heavy."""

import msgspec


class PrivacyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes by name. A name that ends in `.*` is a prefix. In the environment, separate names by commas."""

    content_attributes: tuple[str, ...] = ()
    """Further names of content, which is not sent if `capture_content` is off."""
    withhold: tuple[str, ...] = ()
    """Attributes that are never sent."""
