"""The words of a user as a full-text query."""

from prela_stream.sinks.sqlite.search import match_terms


def test_a_query_is_made_of_quoted_words_alone() -> None:
    assert match_terms('echo "hi" OR drop* -- \0x') == ['"echo"', '"""hi"""', '"OR"', '"drop"*', '"x"']
    assert match_terms("() - *") == []
