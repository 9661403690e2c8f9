"""Random traced programs and the items that an SDK would send for them: the ground truth for completeness.

`simulate` runs agents in up to three processes. Children run concurrently, start after their parent's end, or are deferred.
Contexts are passed to other processes and answered once, twice or never. There are additional roots, and spans of a foreign
tracer without counts. Then items are lost and duplicated as the delivery guarantees allow.
"""

import random
from typing import Self

import msgspec

from prela_stream.codec.spans import encode_item, encode_resource
from prela_stream.model.span import AFTER_END, COUNTED, REMOTE_PARENT, ItemKind, Resource


class Faults(msgspec.Struct, kw_only=True):
    """Probabilities of faults."""

    drop: float = 0.0
    """The queue drops a span item."""
    report: float = 0.0
    """A LOST item reports a dropped span."""
    duplicate: float = 0.0
    foreign: float = 0.0
    unanswered: float = 0.0
    """An injected context is never used."""
    stripped: float = 0.0
    """An injected context is used without its tracestate member."""
    restart: float = 0.0
    """A span is suspended and resumed."""
    revise: float = 0.0
    """An earlier revision with different values precedes a span item."""

    @classmethod
    def any(cls, rng: random.Random) -> Self:
        """Each fault with some probability, often none."""

        def chance() -> float:
            return rng.choice((0.0, 0.0, 0.05, 0.3))

        return cls(
            drop=chance(),
            report=rng.choice((0.0, 0.5, 1.0)),
            duplicate=chance(),
            foreign=chance(),
            unanswered=chance(),
            stripped=chance(),
            restart=chance(),
        )


class SimulatedSpan(msgspec.Struct, kw_only=True, eq=False):
    """A span of the program."""

    span_id: bytes
    parent: "SimulatedSpan | None"
    process: int
    flags: int = 0
    ordinal: int | None = None
    foreign: bool = False
    ended: bool = False
    children: int = 0
    injects: int = 0
    reserved: int = 0
    """Deferred children that have not started yet."""

    @property
    def names_parent(self) -> bool:
        """Whether the trace is incomplete without its parent."""
        return self.parent is not None and not (self.flags & REMOTE_PARENT and self.ordinal is None)


class Send(msgspec.Struct, frozen=True):
    """An item that is sent to the log."""

    resource: bytes
    item: bytes


class Program(msgspec.Struct, kw_only=True):
    """The spans of a program, and the items that were sent."""

    trace_id: bytes
    spans: dict[bytes, SimulatedSpan] = {}
    injects: list[tuple[SimulatedSpan, int]] = []
    """Every context that was passed to another process."""
    sends: list[Send] = []
    dropped: set[bytes] = set()

    def missing(self, received: set[bytes]) -> str | None:
        """What a complete trace would have in addition to `received`, as text; None if nothing.

        A received span implies its parents, the children that they counted and the answers to their injects, and the same for
        those. A tree without a received span cannot be known.
        """
        expected = set(received)
        grew = True
        while grew:
            grew = False
            for span in self.spans.values():
                by_parent = span.flags & COUNTED and span.parent is not None and span.parent.span_id in expected
                if span.span_id not in expected and by_parent:
                    expected.add(span.span_id)
                    grew = True
                if (
                    span.span_id in expected
                    and span.names_parent
                    and span.parent
                    and span.parent.span_id not in expected
                ):
                    expected.add(span.parent.span_id)
                    grew = True
        if expected - received:
            return f"{len(expected - received)} counted spans"
        answered = {(span.parent, span.ordinal) for span in self.spans.values() if span.span_id in received}
        open_injects = [key for key in self.injects if key[0].span_id in received and key not in answered]
        return f"{len(open_injects)} answers" if open_injects else None


def simulate(rng: random.Random, faults: Faults, trace_id: bytes = b"\x01" * 16, steps: int = 20) -> Program:
    """Run a random program of about `steps` actions, with an SDK in each of its processes."""
    return _Simulation(rng, faults, trace_id).run(steps)


class _Simulation:
    def __init__(self, rng: random.Random, faults: Faults, trace_id: bytes) -> None:
        self.rng = rng
        self.faults = faults
        self.program = Program(trace_id=trace_id, spans={}, injects=[], sends=[], dropped=set())
        self.open: list[SimulatedSpan] = []
        self.ended: list[SimulatedSpan] = []
        self.handed: list[tuple[SimulatedSpan, int]] = []
        self.deferred: list[SimulatedSpan] = []
        beats = rng.choice((0, 10))
        self.resources = [encode_resource(Resource(pid=pid, heartbeat_ms=beats)) for pid in range(3)]

    def run(self, steps: int) -> Program:
        self.start(None, 0)
        actions = (self.child, self.child, self.child, self.end, self.end, self.inject, self.answer, self.late_child, self.defer,
                   self.deferred_child, self.pause)  # fmt: skip
        for _ in range(self.rng.randrange(steps)):
            self.rng.choice(actions)()
        if self.rng.random() < 0.1:
            self.start(None, self.rng.randrange(3))
        while self.deferred:
            self.deferred_child()
        while self.handed:
            self.answer()
        while self.open:
            self.end()
        return self.program

    def start(
        self, parent: SimulatedSpan | None, process: int, flags: int = 0, ordinal: int | None = None
    ) -> SimulatedSpan:
        number = len(self.program.spans)
        span = SimulatedSpan(
            span_id=number.to_bytes(8, "big"), parent=parent, process=process, flags=flags, ordinal=ordinal
        )
        span.foreign = self.rng.random() < self.faults.foreign
        self.program.spans[span.span_id] = span
        self.open.append(span)
        if parent is None or self.rng.random() < 0.2:
            self.send(span, ItemKind.START)
        return span

    def child(self) -> None:
        if self.open:
            parent = self.rng.choice(self.open)
            if parent.foreign:
                self.start(parent, parent.process)
            else:
                parent.children += 1
                self.start(parent, parent.process, COUNTED)

    def late_child(self) -> None:
        if self.ended:
            parent = self.rng.choice(self.ended)
            self.start(parent, parent.process, AFTER_END)

    def defer(self) -> None:
        if self.open:
            parent = self.rng.choice(self.open)
            if not parent.foreign:
                parent.children += 1
                self.deferred.append(parent)

    def deferred_child(self) -> None:
        if self.deferred:
            parent = self.deferred.pop(self.rng.randrange(len(self.deferred)))
            self.start(parent, parent.process, COUNTED)

    def inject(self) -> None:
        if self.open:
            span = self.rng.choice(self.open)
            if not span.foreign:
                ordinal = span.injects
                span.injects += 1
                self.program.injects.append((span, ordinal))
                if self.rng.random() >= self.faults.unanswered:
                    self.handed.append((span, ordinal))

    def answer(self) -> None:
        if not self.handed:
            return
        place = self.rng.randrange(len(self.handed))
        parent, ordinal = self.handed[place]
        if self.rng.random() < 0.8:  # else the same context is used once more later
            del self.handed[place]
        stripped = self.rng.random() < self.faults.stripped
        self.start(parent, (parent.process + 1) % 3, REMOTE_PARENT, None if stripped else ordinal)

    def end(self) -> None:
        if self.open:
            span = self.open.pop(self.rng.randrange(len(self.open)))
            self.ended.append(span)
            span.ended = True
            self.send(span, ItemKind.SPAN)

    def pause(self) -> None:
        if self.open and self.rng.random() < self.faults.restart:
            span = self.rng.choice(self.open)
            self.send(span, ItemKind.SUSPEND)
            self.send(span, ItemKind.RESUME)

    def send(self, span: SimulatedSpan, kind: ItemKind) -> None:
        faults, sends = self.faults, self.program.sends
        resource = self.resources[span.process]
        if self.rng.random() < faults.drop:
            self.program.dropped.add(span.span_id)
            if self.rng.random() < faults.report:
                sends.append(Send(resource, encode_item(ItemKind.LOST, self.program.trace_id)))
            return
        revised = span.ended and self.rng.random() < faults.revise
        if revised:
            sends.append(Send(resource, self.encode_scrambled(span)))
        item = self.encode(span, kind, revision=int(revised))
        sends.append(Send(resource, item))
        if self.rng.random() < faults.duplicate:
            sends.insert(self.rng.randrange(len(sends)), Send(resource, item))

    def encode(self, span: SimulatedSpan, kind: ItemKind, revision: int) -> bytes:
        counted = span.ended and not span.foreign
        return encode_item(
            kind,
            self.program.trace_id,
            span.span_id,
            None if span.parent is None else span.parent.span_id,
            span.flags,
            1 if span.ended else 0,
            revision,
            span.children if counted else None,
            span.injects if counted else None,
            span.ordinal,
            1,
            1_000,
            5 if span.ended else None,
            "work",
        )

    def encode_scrambled(self, span: SimulatedSpan) -> bytes:
        rng = self.rng
        return encode_item(
            ItemKind.SPAN,
            self.program.trace_id,
            span.span_id,
            rng.choice([None, span.span_id, *self.program.spans, b"nowhere!"]),
            rng.choice((0, COUNTED, AFTER_END, REMOTE_PARENT)),
            rng.choice((0, 1)),
            0,
            rng.choice((None, 0, 1, 2)),
            rng.choice((None, 0, 1, 2)),
            rng.choice((None, 0, 1)),
        )
