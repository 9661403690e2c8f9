"""Docstrings of functions, classes and fields as Markdown."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises):$", re.MULTILINE)


def cell(text: str) -> str:
    """Text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def summary(thing: Any) -> str:
    """The first paragraph of a docstring; empty if there is none."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def description(thing: Any) -> str:
    """A docstring as Markdown: its paragraphs and code, then its arguments, results and errors as lists."""
    text = inspect.getdoc(thing) or ""
    prose, *sections = _SECTION.split(text)
    blocks = [_paragraph(block) for block in prose.strip().split("\n\n") if block.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        blocks.append(f"{title}:\n\n{_items(title, body)}")
    return "\n\n".join(blocks)


def _paragraph(block: str) -> str:
    if block.startswith("    "):
        return f"```text\n{inspect.cleandoc(block)}\n```"
    return " ".join(block.split())


def _items(title: str, body: str) -> str:
    lines = inspect.cleandoc(body).splitlines()
    joined: list[str] = []
    for line in lines:
        if line.startswith(" ") and joined:
            joined[-1] += f" {line.strip()}"
        elif line.strip():
            joined.append(line.strip())
    if title in ("Returns", "Yields"):
        return f"- {' '.join(joined)}"
    return "\n".join(re.sub(r"^(\w+): ", r"- `\1`: ", line) for line in joined)


@cache
def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring below each field of a class."""
    file = Path(inspect.getfile(kind))
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (body,) = (node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    found: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = _constant(following)
    return found


def _constant(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""
