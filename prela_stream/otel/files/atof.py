"""Events of NVIDIA's ATOF 0.1, one on each line: the start and the end of a scope are separate, and are joined by `uuid`.

Drafts of the format name the events `ScopeStart` and `ScopeEnd`, and have other names for their fields. They are read too.

A scope is a span. What it was given and what it returned are in `data` of its start and of its end. Its trace is that of the
outermost scope above it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.files.times import moment_of
from prela_stream.otel.ids import id_or_hash
from prela_stream.otel.spans import ForeignEvent, ForeignSpan, Rejected

_OPERATIONS: Final[Mapping[str, str]] = {
    "llm": "chat",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "retriever": "retrieval",
    "reranker": "rerank",
    "embedder": "embeddings",
    "embedding": "embeddings",
}
_PROFILE: Final[Mapping[str, str]] = {"model_name": "gen_ai.request.model", "tool_call_id": "gen_ai.tool.call.id"}
_DRAFT: Final = {"ScopeStart": "start", "ScopeEnd": "end"}
_DATA: Final = (("start", "input"), ("end", "output"))
_HEADER: Final = "StreamHeader"


def recognised(document: Any) -> bool:
    """Whether a document is an event of ATOF, or a list of them."""
    events = document if isinstance(document, list) else [document]
    return any(_is_event(one) for one in events)


def _is_event(one: Any) -> bool:
    return isinstance(one, Mapping) and (
        ("atof_version" in one and "uuid" in one)
        or ("schema_version" in one and "uuid" in one and "timestamp" in one and isinstance(one.get("kind"), str))
    )


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The scopes of these events."""
    events = document if isinstance(document, list) else [document]
    scopes: dict[str, _Scope] = {}
    alone: list[tuple[str, Mapping[str, Any]]] = []
    for index, event in enumerate(events):
        place = f"$[{index}]"
        one = _current(event) if isinstance(event, Mapping) else {}
        if not isinstance(one.get("uuid"), str):
            yield Rejected(place=place, reason="expected an event with a uuid")
        elif one.get("kind") == "scope":
            scope = scopes.setdefault(one["uuid"], _Scope(place))
            scope.add(one)
        elif isinstance(one.get("parent_uuid"), str):
            scopes.setdefault(one["parent_uuid"], _Scope(place)).marks.append(one)
        elif one.get("kind") != _HEADER:
            alone.append((place, one))
    roots = [scope for scope in scopes.values() if scope.parent is None]
    for place, one in alone:
        if len(roots) == 1:
            roots[0].marks.append(one)
        else:
            yield Rejected(place=place, reason="expected a scope, or an event with a parent_uuid")
    for uuid, scope in scopes.items():
        try:
            yield scope.span(uuid, _root(uuid, scopes))
        except CodecError as error:
            yield Rejected(place=scope.place, reason=str(error))


def _current(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event of a draft with the names of version 0.1."""
    side = _DRAFT.get(str(event.get("kind")))
    if side is None:
        return event
    profile = {key: event[key] for key in (*_PROFILE, "codec") if event.get(key) is not None}
    data = {key: event[source] for key, source in (("data", dict(_DATA)[side]),) if event.get(source) is not None}
    return {
        **event,
        **data,
        "kind": "scope",
        "scope_category": side,
        "category": event.get("scope_type"),
        "category_profile": profile,
    }


def _root(uuid: str, scopes: Mapping[str, "_Scope"]) -> str:
    seen = {uuid}
    while (parent := scopes[uuid].parent) is not None and parent not in seen:
        seen.add(parent)
        uuid = parent
        if parent not in scopes:
            break
    return uuid


class _Scope:
    """The events of one scope."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.start: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] = {}
        self.marks: list[Mapping[str, Any]] = []

    def add(self, event: Mapping[str, Any]) -> None:
        if event.get("scope_category") == "end":
            self.end = event
        else:
            self.start = event

    @property
    def parent(self) -> str | None:
        found = self.start.get("parent_uuid") or self.end.get("parent_uuid")
        return found if isinstance(found, str) else None

    def span(self, uuid: str, root: str) -> ForeignSpan:
        both = {
            **{k: v for k, v in self.end.items() if v is not None},
            **{k: v for k, v in self.start.items() if v is not None},
        }
        if not both:
            msg = f"the scope {uuid[:60]!r} has events, and no start and no end"
            raise CodecError(msg)
        category = str(both.get("category", "")).lower()
        attributes: dict[str, Any] = {"atof.category": category} if category else {}
        if operation := _OPERATIONS.get(category):
            attributes["gen_ai.operation.name"] = operation
        for profile in (self.start.get("category_profile"), self.end.get("category_profile")):
            for key, value in profile.items() if isinstance(profile, Mapping) else ():
                attributes[_PROFILE.get(key, f"atof.{key}")] = value
        for name, event in (("input.value", self.start), ("output.value", self.end)):
            if event.get("data") is not None:
                attributes[name] = event["data"]
        if isinstance(both.get("metadata"), Mapping):
            attributes["atof.metadata"] = both["metadata"]
        error = self.end.get("error")
        if isinstance(error, Mapping):
            attributes.update({f"error.{key}": error[key] for key in ("type", "message") if error.get(key) is not None})
        start, end = moment_of(self.start.get("timestamp")), moment_of(self.end.get("timestamp"))
        return ForeignSpan(
            trace_id=id_or_hash(root, 16, "uuid"),
            span_id=id_or_hash(uuid, 8, "uuid"),
            parent_span_id=None if self.parent is None else id_or_hash(self.parent, 8, "parent uuid"),
            name=str(both.get("name", "")),
            start_ns=start or end or 0,
            end_ns=end,
            status="error" if error or self.end.get("status") == "error" else "unset",
            attributes=attributes,
            events=[
                ForeignEvent(
                    name=str(one.get("name", one.get("kind", ""))),
                    time_ns=moment_of(one.get("timestamp")) or 0,
                    attributes={"data": one["data"]} if one.get("data") is not None else {},
                )
                for one in self.marks
            ],
        )
