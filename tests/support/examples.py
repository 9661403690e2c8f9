"""How many examples a property gets, if the usual number does not fit it."""

from hypothesis import settings

USUAL = 100
"""Examples of a property that asks for no number, in every profile but `quick`."""


def examples(count: int) -> settings:
    """`count` examples, and the same share of them as other properties have in the profile `quick`."""
    return settings(max_examples=max(1, count * settings().max_examples // USUAL))
