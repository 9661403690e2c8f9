"""Converts the values of options and arguments. typer does it with pydantic, whose import alone takes as long as a whole start.

What is not converted here, typer converts as usual: releases of typer without pydantic, and kinds that are not listed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from prela_stream.text import show

_LONGEST: Final = 40


def convert_here(parameters: list[Any]) -> list[Any]:
    """Let these parameters of a command be converted by this module; returns them."""
    for parameter in parameters:
        descriptor = getattr(parameter, "type_descriptor", None)
        known = None if descriptor is None else _converter(descriptor.annotation, parameter)
        if known is not None and not isinstance(parameter.process_value, partial):
            parameter.process_value = partial(_process, parameter.process_value, known, parameter)
    return parameters


class Command(TyperCommand):
    """A command of which this module converts the values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments, and `--help`."""
        return convert_here(super().get_params(ctx))


def _process(by_typer: Callable[..., Any], convert: Callable[[Any], Any], parameter: Any, ctx: Any, value: Any) -> Any:
    converted: Any
    many = parameter.multiple or parameter.nargs == -1
    if value is None or (many and not value):
        if parameter.required:
            return by_typer(ctx, value)  # reports what is missing
        converted = () if many else None
    else:
        try:
            converted = [convert(one) for one in value] if many else convert(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=parameter) from None
    return converted if parameter.callback is None else parameter.callback(ctx, parameter, converted)


def _converter(annotation: Any, parameter: Any) -> Callable[[Any], Any] | None:
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    if annotation in (str, bool):
        return _same
    if annotation is Path:
        return Path
    if annotation in (int, float):
        return partial(_number, annotation, parameter.min, parameter.max)
    if get_origin(annotation) is Literal:
        return partial(_choice, get_args(annotation))
    return None


def _same(value: Any) -> Any:
    return value


def _number(kind: type, least: float | None, most: float | None, value: Any) -> Any:
    what = "a whole number" if kind is int else "a number"
    bounds = f" from {least:,} to {most:,}" if least is not None and most is not None else ""
    given = value
    if isinstance(value, str):
        try:
            value = kind(value) if len(value) <= _LONGEST and value.isascii() else None
        except ValueError:
            value = None
    fits = value is not None and (least is None or value >= least) and (most is None or value <= most)
    if not fits:
        msg = f"expected {what}{bounds}, got {show(given)}"
        raise ValueError(msg)
    return value


def _choice(choices: tuple[str, ...], value: Any) -> Any:
    if value not in choices:
        msg = f"expected one of {', '.join(map(str, choices))}"
        raise ValueError(msg)
    return value
