"""The words to avoid (docs/style.md) stay rare in package, docs and tests; files and functions stay small."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "prela_stream").rglob("*.py"))
TEXTS = sorted(
    [
        *SOURCES,
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "tests").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)

# words to avoid begin
AVOIDED = re.compile(
    r"\b(say|says|said|saying|tell|tells|told|stand|stands|stood|standing|ours|somebody|nobody|anybody|whoever|anew|meanwhile"
    r"|(?:of )?(?:its|their) own accord|of its own|by itself|bury|buried|buries|punch|punches|punched|settles?|settled|settling"
    r"|hand(?:s|ed)? out|go(?:es)? away|went away|comes? back|came back|here and there|as it must be|looks?|looked)\b",
    re.IGNORECASE,
)
# words to avoid end
SKIPPED = re.compile(
    r"# words to avoid begin.*?# words to avoid end"
    r"|<!-- words to avoid begin -->.*?<!-- words to avoid end -->",
    re.DOTALL,
)
SETTLE = re.compile(r"`(?:assembly\.)?settle`|settle_ms|\bsettle=")
"""The name of one wait of assembly; it has no synonym."""
LINES_PER_AVOIDED_WORD = 1_000

MAX_FILE = 400
MAX_FUNCTION = 80
LONG_FUNCTIONS = {
    "prela_stream/tracing/tracer.py:span": "written out: a helper call would cost a tenth of a span's time",
}
"""At most two functions may be longer, each with its reason."""


def avoided(text: str) -> list[str]:
    """The avoided words of a text, in lower case."""
    return [found.lower() for found in AVOIDED.findall(SETTLE.sub("", SKIPPED.sub("", text)))]


def test_avoided_words_are_rare() -> None:
    words = Counter[str]()
    places: list[str] = []
    lines = 0
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        lines += text.count("\n")
        if found := avoided(text):
            words.update(found)
            places.append(f"{path.relative_to(ROOT)}: {', '.join(found)}")
    budget = lines // LINES_PER_AVOIDED_WORD
    assert sum(words.values()) <= budget, "\n".join(
        [f"{words.total()} words, {budget} allowed; see docs/style.md", *places]
    )


# words to avoid begin
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The log says that it stood still.", 2),
        ("It comes back by itself.", 2),
        ("assembly.settle_ms and `settle` are names.", 0),
        ("It settles.", 1),
        ("said # words to avoid begin\nsaid\n# words to avoid end", 1),
        ("understand essays", 0),
    ],
)
def test_the_count_of_avoided_words(text: str, count: int) -> None:
    assert len(avoided(text)) == count


# words to avoid end


def test_the_style_page_lists_the_avoided_words() -> None:
    page = (ROOT / "docs" / "style.md").read_text(encoding="utf-8")
    (table, *_) = SKIPPED.findall(page)
    assert len(set(AVOIDED.findall(table))) >= 10


def test_files_are_small() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > MAX_FILE} == {}


def functions() -> Iterator[tuple[str, int]]:
    """Each function of the package with its number of lines, decorators excluded."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_are_short() -> None:
    long = {name: lines for name, lines in functions() if lines > MAX_FUNCTION}
    assert set(long) - set(LONG_FUNCTIONS) == set(), f"{long}: at most {MAX_FUNCTION} lines"
    assert set(LONG_FUNCTIONS) - set(long) == set(), "short enough now: remove them from LONG_FUNCTIONS"
    assert len(LONG_FUNCTIONS) <= 2
