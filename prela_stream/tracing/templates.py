"""Span functions as decorators: `@tracer.tool`, `@tracer.tool("search")` and `@tracer.span("step")`.

`tracer.tool("search")` cannot know whether `with` or a function follows, so it starts a span. If a function follows, that span is
withdrawn and is the template of the spans of each call.
"""

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from prela_stream.errors import guard
from prela_stream.model.semconv import AGENT_NAME, TOOL_NAME
from prela_stream.model.span import SPAN_TYPES, SpanType
from prela_stream.tracing.children import ChildCounts
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.session import carried_attributes
from prela_stream.tracing.wrapping import traced

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
S_co = TypeVar("S_co", covariant=True)

NAME_ATTRIBUTES: Final[Mapping[SpanType, str]] = {SpanType.AGENT: AGENT_NAME, SpanType.TOOL: TOOL_NAME}


class Unnamed(str):
    """The name of a span that was given none: in a decorator, the name of the function replaces it."""

    __slots__ = ()


class SpanFunction(Protocol[P, S_co]):
    """The type of a span function: it returns a span, or decorates the function that it is given."""

    @overload
    def __call__(self, name: F, /) -> F: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> S_co: ...


class SpanMethod(Generic[P, S_co]):
    """The type of a span function in a class. Only type checkers see it: at run time it is the function itself."""

    @overload
    def __get__(self, instance: None, owner: type) -> "SpanMethod[P, S_co]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> SpanFunction[P, S_co]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """See the class."""
        raise NotImplementedError


def is_decorated(name: object) -> bool:
    """Whether what a span function was given for a name is a function or another object that `@` was put above."""
    return not issubclass(type(name), str) and (callable(name) or hasattr(type(name), "__get__"))


def also_decorates(function: Callable[Concatenate[Any, P], S_co]) -> SpanMethod[P, S_co]:
    """Give a method that starts a span the type of one that decorates, too. It has to pass functions to `decorated`."""
    return cast("SpanMethod[P, S_co]", function)


class TemplatePlan:
    """The spans of a function; see `wrapping.Plan`."""

    def __init__(self, tracer: Any, name: str, span_type: SpanType, attributes: dict[str, Any], scope: Any) -> None:
        self._tracer, self._name, self._type = tracer, name, span_type
        self._attributes, self._scope = attributes, scope

    def begin(self, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        """Start the span of a call."""
        return self._tracer.span(self._name, self._type, self._attributes, scope=self._scope)

    def finish(self, _span: Any, result: Any) -> Any:
        """Return the result."""
        return result


def decorated(tracer: Any, function: Any, span_type: SpanType, attributes: Mapping[str, Any], scope: Any = None) -> Any:
    """The wrapper for `@tracer.tool` without parentheses, and for a template without a name."""

    def plan(inner: Any) -> TemplatePlan:
        name = text_of(getattr(inner, "__name__", type(inner).__name__))
        key = NAME_ATTRIBUTES.get(span_type)
        return TemplatePlan(tracer, name, span_type, {**attributes, **({} if key is None else {key: name})}, scope)

    return traced(function, plan, "a span decorator")


def decorator_of(
    tracer: Any, name: Any, span_type: SpanType, attributes: dict[str, Any], scope: Any
) -> Callable[[Any], Any]:
    """The decorator for a span of these arguments."""
    if type(name) is Unnamed:
        return lambda function: decorated(tracer, function, span_type, attributes, scope)
    plan = TemplatePlan(tracer, text_of(name), span_type, attributes, scope)
    return lambda function: traced(function, lambda _: plan, "a span decorator")


class Template(ChildCounts):
    """What makes a span usable as a decorator."""

    __slots__ = ()

    def __call__(self, function: F) -> F:
        """Decorate a function with spans like this one, which is withdrawn and never recorded.

        Only for a span that was not entered. Otherwise an error is logged and the function is returned unchanged.
        """
        with guard("span.decorate"):
            if hasattr(self, "_previous"):
                msg = f"the span {self._name!r} was entered, so it cannot decorate {function!r}, which is returned unchanged"
                raise TypeError(msg)
            attributes = self._template_attributes()
            self._withdraw()
            self._final = attributes  # for the next function that is decorated
            scope = getattr(self, "_scope", None)
            decorate = decorator_of(self._tracer, self._name, SPAN_TYPES[self._type], attributes, scope)
            return cast("F", decorate(function))
        return function

    def _template_attributes(self) -> dict[str, Any]:
        """The attributes of this span without those of the session in which the decorator runs."""
        carried = carried_attributes(self._trace._baggage)
        return {key: value for key, value in self.attributes.items() if key not in carried}

    def _withdraw(self) -> None:
        """Undo the start of this span."""
        raise NotImplementedError
