"""The words of a user as a full-text query."""

from prela_stream.sinks.sqlite.search import match_query


def test_a_query_is_made_of_quoted_words_alone() -> None:
    assert match_query('echo "hi" OR drop* -- \0x') == '"echo" AND """hi""" AND "OR" AND "drop"* AND "x"'
    assert match_query("() - *") is None
