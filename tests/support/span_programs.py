"""Random programs that make spans, and an interpreter that runs them on any SDK with the ancestor's interface.

A program is plain data, so two SDKs run the very same one. The generator notes the truth as it goes: which span each span is the
child of, from its place in the program, and what the program does around it.
"""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextvars import Context
from typing import Any, Protocol

import msgspec

Op = list[Any]


class Truth(msgspec.Struct, frozen=True):
    """What is known of a span from the program's text."""

    parent: str | None
    status: str
    causes: frozenset[str]
    """Ops that this span's trace runs before or around it."""


class Program(msgspec.Struct, frozen=True):
    """Ops to run one after the other, outside of any span."""

    body: list[Op]
    truth: dict[str, Truth]


class Sdk(Protocol):
    """What the interpreter asks of an SDK."""

    tracer: Any
    types: Any
    statuses: Any
    trace: Any

    def current_name(self) -> str | None: ...
    def set_on_current(self, key: str, value: Any) -> None: ...
    def enter_for_ever(self, name: str) -> Any: ...


def generate(seed: int) -> Program:
    """The program of a seed: a few traces with up to some dozens of spans."""
    return _Generator(random.Random(seed)).program()


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.truth: dict[str, Truth] = {}
        self.count = 0
        self.budget = rng.randrange(4, 30)
        self.causes: set[str] = set()

    def program(self) -> Program:
        body: list[Op] = []
        while self.budget > 0:
            self.causes = set()
            before = set(self.truth)
            body.append(["trace", self.block(None)])
            for name in set(self.truth) - before:  # whatever a trace does may have an effect on all of it
                known = self.truth[name]
                self.truth[name] = msgspec.structs.replace(known, causes=frozenset(self.causes))
        return Program(body, self.truth)

    def name(self, parent: str | None, status: str = "SUCCESS") -> str:
        self.count += 1
        name = f"s{self.count}"
        self.truth[name] = Truth(parent, status, frozenset())
        return name

    def block(self, parent: str | None, depth: int = 0, *, own: bool = True) -> list[Op]:
        """Ops inside of `parent`; with `own`, also such that change it."""
        ops: list[Op] = []
        for _ in range(self.rng.randrange(1, 4)):
            self.budget -= 1
            if self.budget < 0 or depth > 4:
                break
            ops.append(self.op(parent, depth, own=own))
        return ops

    def op(self, parent: str | None, depth: int, *, own: bool) -> Op:
        kinds = ["span"] * 4 + ["gather", "call", "fail", "manual", "crossed", "late", "end_inside", "generator", "shared",
                                "mutated", "thread", "odd", "current", "twice"]  # fmt: skip
        if parent is None:
            kinds += ["open_root", "span", "span"]
        elif own:
            kinds += ["attr", "event", "status"] * 3
        kind = self.rng.choice(kinds)
        if kind not in ("span", "call", "attr", "event", "status", "current", "thread"):
            self.causes.add(kind)
        made: Op = getattr(self, f"make_{kind}")(parent, depth, own)
        return made

    def make_span(self, parent: str | None, depth: int, own: bool) -> Op:
        kind = self.rng.choice(["AGENT", "LLM", "TOOL", "RETRIEVAL", "EMBEDDING", "CUSTOM"])
        attributes = self.rng.choice([None, {}, {"a": 1, "b": "text"}, {"nested": {"list": [1, None, 2.5]}}])
        name = self.name(parent)
        return ["span", name, kind, attributes, self.block(name, depth + 1)]

    def make_gather(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["gather", [self.block(parent, depth + 1, own=own) for _ in range(self.rng.randrange(2, 4))]]

    def make_call(self, parent: str | None, depth: int, own: bool) -> Op:
        name = self.name(parent)
        is_async = self.rng.random() < 0.5
        return ["call", name, is_async, self.block(name, depth + 1, own=False) if is_async else []]

    def make_fail(self, parent: str | None, depth: int, own: bool) -> Op:
        error = self.rng.choice(["ValueError", "KeyError", "CancelledError", "GeneratorExit", "silent"])
        status = {"CancelledError": "CANCELLED", "GeneratorExit": "SUCCESS"}.get(error, "ERROR")
        outer = self.name(parent, status)
        inner = self.name(outer, status)
        return ["fail", outer, inner, error]

    def make_manual(self, parent: str | None, depth: int, own: bool) -> Op:
        name = self.name(parent)
        return [
            "manual",
            name,
            self.block(parent, depth + 1, own=own),
        ]  # it is not current: what follows hangs where it hangs

    def make_crossed(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["crossed", self.name(parent), self.name(parent)]

    def make_late(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["late", self.name(parent)]

    def make_end_inside(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["end_inside", self.name(parent)]

    def make_generator(self, parent: str | None, depth: int, own: bool) -> Op:
        name = self.name(parent)
        return ["generator", name, [self.name(parent), self.name(parent)], self.name(name)]

    def make_shared(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["shared", self.name(parent)]

    def make_mutated(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["mutated", self.name(parent)]

    def make_odd(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["odd", self.name(parent)]

    def make_twice(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["twice", self.name(parent), self.name(parent)]

    def make_thread(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["thread", self.name(None)]

    def make_open_root(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["open_root", self.name(UNDELIVERED)]

    def make_current(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["current", parent]

    def make_attr(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["attr", self.rng.choice(["k", "llm.model", "x"]), self.rng.choice([1, "text", None, [1, 2], {"a": {}}])]

    def make_event(self, parent: str | None, depth: int, own: bool) -> Op:
        return ["event", self.rng.choice(["started", "llm.request"]), self.rng.choice([None, {}, {"n": 1}])]

    def make_status(self, parent: str | None, depth: int, own: bool) -> Op:
        status = self.rng.choice(["SUCCESS", "ERROR"])
        assert parent is not None
        self.truth[parent] = Truth(self.truth[parent].parent, status, frozenset())
        return ["status", status, self.rng.choice([None, "so it went"])]


UNDELIVERED = "?"
"""The parent of a span whose parent never ends."""


class SilentError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        return ""


class Interpreter:
    """Runs a program; `log` is what the application saw of the SDK."""

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk
        self.log: list[tuple[str, str, Any]] = []
        self.left_open: list[Any] = []

    def run(self, program: Program) -> None:
        """Run each trace in a separate context, so that one does not affect the next."""
        for _, body in program.body:
            Context().run(asyncio.run, self.block(body, None))

    async def block(self, ops: list[Op], span: Any) -> None:
        for op in ops:
            await getattr(self, f"do_{op[0]}")(span, *op[1:])

    def saw(self, what: str, name: str, value: Any) -> None:
        self.log.append((what, name, value))

    async def do_span(self, _: Any, name: str, kind: str, attributes: Any, body: list[Op]) -> None:
        with self.sdk.tracer.span(
            name, self.sdk.types[kind], attributes=None if attributes is None else dict(attributes)
        ) as span:
            await asyncio.sleep(0)
            await self.block(body, span)

    async def do_gather(self, span: Any, bodies: list[list[Op]]) -> None:
        await asyncio.gather(*(self.block(body, span) for body in bodies))

    async def do_call(self, _: Any, name: str, is_async: bool, body: list[Op]) -> None:
        if is_async:

            @self.sdk.trace(name, tracer=self.sdk.tracer)  # type: ignore[untyped-decorator]  # of any SDK
            async def called() -> None:
                await self.block(body, None)

            await called()
        else:

            @self.sdk.trace(name, tracer=self.sdk.tracer)  # type: ignore[untyped-decorator]  # of any SDK
            def called_now() -> int:
                return 5

            self.saw("returned", name, called_now())

    async def do_fail(self, _: Any, outer: str, inner: str, error: str) -> None:
        kinds = {"CancelledError": asyncio.CancelledError, "GeneratorExit": GeneratorExit, "silent": SilentError}
        kind: type[BaseException] = kinds.get(error) or {"ValueError": ValueError, "KeyError": KeyError}[error]
        try:
            with self.sdk.tracer.span(outer), self.sdk.tracer.span(inner):
                raise kind(*(() if error == "silent" else ("broken",)))
        except kind as raised:
            self.saw("raised", outer, type(raised).__name__)

    async def do_manual(self, span: Any, name: str, body: list[Op]) -> None:
        manual = self.sdk.tracer.start_span(name)
        await self.block(body, span)
        self.tried("end", name, manual.end)

    async def do_crossed(self, _: Any, first: str, second: str) -> None:
        one, two = self.sdk.tracer.start_span(first), self.sdk.tracer.start_span(second)
        self.tried("end", first, one.end)
        self.tried("end", second, two.end)

    async def do_late(self, _: Any, name: str) -> None:
        with self.sdk.tracer.span(name) as span:
            pass
        self.tried("set_attribute after the end", name, lambda: span.set_attribute("late", 1))
        self.tried("add_event after the end", name, lambda: span.add_event("late"))
        self.tried("second end", name, span.end)

    async def do_end_inside(self, _: Any, name: str) -> None:
        def block() -> None:
            with self.sdk.tracer.span(name) as span:
                span.end()

        self.tried("end inside of its block", name, block)

    async def do_generator(self, _: Any, name: str, loops: list[str], inside: str) -> None:
        @self.sdk.trace(name, tracer=self.sdk.tracer)  # type: ignore[untyped-decorator]  # of any SDK
        def numbers() -> Iterator[int]:
            yield 0
            with self.sdk.tracer.span(inside):
                yield 1

        for number in numbers():
            with self.sdk.tracer.span(loops[number]):
                await asyncio.sleep(0)

    async def do_shared(self, _: Any, name: str) -> None:
        mine = {"k": 1}
        with self.sdk.tracer.span(name, attributes=mine) as span:
            span.set_attribute("more", 2)
        self.saw("the application's own dict", name, sorted(mine))

    async def do_mutated(self, _: Any, name: str) -> None:
        value = [1]
        with self.sdk.tracer.span(name) as span:
            span.set_attribute("value", value)
        value.append(2)

    async def do_odd(self, _: Any, name: str) -> None:
        with self.sdk.tracer.span(name) as span:
            span.set_attribute("odd", {1, 2})

    async def do_twice(self, _: Any, first: str, second: str) -> None:
        shared = {"k": 1}

        @self.sdk.trace(first, tracer=self.sdk.tracer, attributes=shared)  # type: ignore[untyped-decorator]  # of any SDK
        def one() -> None:
            self.sdk.set_on_current("first", 1)

        @self.sdk.trace(second, tracer=self.sdk.tracer, attributes=shared)  # type: ignore[untyped-decorator]  # of any SDK
        def two() -> None:
            pass

        one()
        two()

    async def do_thread(self, _: Any, name: str) -> None:
        def work() -> None:
            with self.sdk.tracer.span(name):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    async def do_open_root(self, _: Any, child: str) -> None:
        def work() -> None:
            self.left_open.append(self.sdk.enter_for_ever("never ended"))
            with self.sdk.tracer.span(child):
                pass

        Context().run(work)

    async def do_current(self, _: Any, expected: str | None) -> None:
        self.saw("current", str(expected), self.sdk.current_name())

    async def do_attr(self, span: Any, key: str, value: Any) -> None:
        span.set_attribute(key, value)

    async def do_event(self, span: Any, name: str, attributes: Any) -> None:
        span.add_event(name, attributes)

    async def do_status(self, span: Any, status: str, message: str | None) -> None:
        span.set_status(self.sdk.statuses[status], message)

    def tried(self, what: str, name: str, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the test compares what an SDK raises into the application
            self.saw(what, name, type(error).__name__)
        else:
            self.saw(what, name, None)
