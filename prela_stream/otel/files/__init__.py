"""Files with spans of other tools. Each reader takes decoded JSON and returns `ForeignSpan`s, and a `Rejected` for each part
that is no span.
"""
