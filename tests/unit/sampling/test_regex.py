"""Regular expressions of policies: in linear time with RE2, and without it only those that cannot take long."""

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.sampling.regex import SEARCHED, RegexError, compile_regex

BACKTRACKS = (("(a+)+$", "a"), ("(a|a)*b", "a"), ("(.*)(.*)(.*)(.*)x$", "y"), (r"^(\w+\s?)*$", "a"))


@pytest.fixture
def without_re2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    compile_regex.cache_clear()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    compile_regex.cache_clear()


@pytest.mark.parametrize(("pattern", "filler"), BACKTRACKS)
def test_an_expression_that_backtracks_without_end_elsewhere_ends(pattern: str, filler: str) -> None:
    """With `re` each of these takes longer than the universe exists. A hang fails by the timeout of the test run."""
    assert compile_regex(pattern).search(filler * (SEARCHED - 1) + "!") is None


@given(st.text(alphabet="ab(é", max_size=20), st.sampled_from(["a.?b", "^a", "b+$", "[^a]b", "(?i)A(b)", "é"]))
def test_it_finds_what_re_finds(text: str, pattern: str) -> None:
    found = re.search(pattern, text)
    assert compile_regex(pattern).search(text) == (found.group() if found else None)


def test_only_the_first_characters_are_searched_and_lone_surrogates_are_no_error() -> None:
    assert compile_regex("x").search("y" * SEARCHED + "x") is None
    assert compile_regex("x").search("\ud800x") == "x"


@pytest.mark.parametrize("pattern", ["a(", r"(a)\1", "(?=a)", "a{5000}", "a" * 10 + "{1000}{1000}"])
def test_an_expression_that_re2_does_not_have_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        compile_regex(pattern)


@pytest.mark.usefixtures("without_re2")
@pytest.mark.parametrize(
    "pattern", [*(pattern for pattern, _ in BACKTRACKS), "a?" * 30 + "a" * 30, "|".join("a" * 30), "a{2}"]
)
def test_without_re2_an_expression_that_can_take_long_names_the_extra(pattern: str) -> None:
    with pytest.raises(RegexError, match=r"install prela-stream\[regex\]"):
        compile_regex(pattern)


@pytest.mark.usefixtures("without_re2")
@pytest.mark.parametrize(
    ("pattern", "text", "match"),
    [
        ("^time", "timeout", "time"),
        (r"a\+[*?{]", "xa+{", "a+{"),
        ("(?i)foo|(?:bar)", "a BAR", "BAR"),
        ("[]+]x", "+x", "+x"),
    ],
)
def test_without_re2_simple_expressions_work(pattern: str, text: str, match: str) -> None:
    assert compile_regex(pattern).search(text) == match


@pytest.mark.usefixtures("without_re2")
def test_without_re2_a_mistake_is_named() -> None:
    with pytest.raises(RegexError, match="missing"):
        compile_regex("a(")
