"""Objects as Node prints them with `console.dir`, which is how JavaScript's `ConsoleSpanExporter` prints spans. They are no JSON:
names have no quotes, strings have any, and an object that is too deep is `[Object]`.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|`(?:[^`\\]|\\.)*+`)|(?P<mark>[{}\[\],:])|(?P<word>[^\s{}\[\],:'"`]++))""",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_WORDS: Final = {"true": True, "false": False, "null": None, "undefined": None}
_PROTOTYPE: Final = "[Object: null prototype] "
_MAX_DEPTH: Final = 32
_ENDS: Final = ("}", "]", ",", ":")

_Token = tuple[str, str, int]


class NotAnObjectError(ValueError):
    """The text is no object of JavaScript."""


def objects(text: str) -> Iterator[tuple[int, Any]]:
    """The objects of a text, one after the other, and where each begins. Raises NotAnObjectError."""
    reader = _Reader(list(_tokens(text.replace(_PROTOTYPE, ""))))
    while not reader.ended:
        start = reader.place
        found = reader.value(0)
        if not isinstance(found, dict | list):
            msg = f"expected an object at character {start:,}, found {found!r:.20}"
            raise NotAnObjectError(msg)
        yield start, found


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            msg = f"expected a value at character {at:,}"
            raise NotAnObjectError(msg)
        kind = str(found.lastgroup)
        yield kind, found[kind], found.start(kind)
        at = found.end()


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._tokens)

    @property
    def place(self) -> int:
        return self._tokens[self._at][2]

    def value(self, depth: int) -> Any:
        kind, word, place = self._next()
        if depth > _MAX_DEPTH or word in _ENDS:
            msg = f"expected a value at character {place:,}, found {word[:20]!r}"
            raise NotAnObjectError(msg)
        if kind == "text":
            return self._text(word)
        if kind == "mark":
            return self._map(depth) if word == "{" else self._list(depth)
        if not self.ended and self._peek() == "{":  # the class of the object
            return self.value(depth + 1)
        return _word(word)

    def _text(self, token: str) -> str:
        found = [_unescaped(token[1:-1])]
        while not self.ended and self._peek() == "+":  # long texts are broken after their lines
            self._at += 1
            kind, token, place = self._next()
            if kind != "text":
                msg = f"expected a text at character {place:,}, found {token[:20]!r}"
                raise NotAnObjectError(msg)
            found.append(_unescaped(token[1:-1]))
        return "".join(found)

    def _map(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._peek() != "}":
            kind, name, place = self._next()
            if kind == "mark" or self._next()[1] != ":":
                msg = f"expected a name at character {place:,}, found {name[:20]!r}"
                raise NotAnObjectError(msg)
            found[_unescaped(name[1:-1]) if kind == "text" else name] = self.value(depth + 1)
            self._skip_comma()
        self._at += 1
        return found

    def _list(self, depth: int) -> list[Any] | None:
        found: list[Any] = []
        while self._peek() != "]":
            found.append(self.value(depth + 1))
            self._skip_comma()
        self._at += 1
        return None if found in (["Object"], ["Array"]) else found  # what is too deep is not printed

    def _skip_comma(self) -> None:
        if self._peek() == ",":
            self._at += 1

    def _peek(self) -> str:
        if self.ended:
            msg = "the text ends inside of an object"
            raise NotAnObjectError(msg)
        return self._tokens[self._at][1]

    def _next(self) -> _Token:
        self._peek()
        self._at += 1
        return self._tokens[self._at - 1]


def _word(token: str) -> Any:
    if token in _WORDS:
        return _WORDS[token]
    try:
        return msgspec.json.decode(token.removesuffix("n"))  # 12n is a BigInt
    except msgspec.DecodeError:
        return token


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _character(found[1]), text) if "\\" in text else text


def _character(escape: str) -> str:
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPED.get(escape, escape)
