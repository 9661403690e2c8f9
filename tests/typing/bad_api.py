"""What type checkers must refuse: each line that ends in `wrong`, and no other."""

import prela_stream as prela


def async_redact_is_allowed_by_its_type_but_not_two_arguments(key: str, value: object) -> None: ...


@prela.trace
def traced(number: int) -> str:
    return str(number)


tracer = prela.get_tracer()
prela.init(12)  # wrong
prela.init(sample_rate="all")  # wrong
prela.init(capture_content="no")  # wrong
prela.init(redact=async_redact_is_allowed_by_its_type_but_not_two_arguments)  # wrong
prela.init(sampler=0.5)  # wrong
prela.init(no_such_argument=True)  # wrong
tracer.span(5)  # wrong
tracer.span("x", span_type="AGENT")  # wrong
tracer.span("x", attributes=["a"])  # wrong
tracer.span("x").set_attribute(1, 2)  # wrong
tracer.span("x").record_exception("text")  # wrong
tracer.span("x").suspend(until="tomorrow")  # wrong
tracer.span("x").name = "y"  # wrong
tracer.span("x").no_such_method()  # wrong
prela.capture_content("off")  # wrong
prela.tool(5)  # wrong
prela.tool("x", no_such_argument=1)  # wrong
prela.llm("x", temperature="hot")  # wrong
prela.ProbabilitySampler("half")  # wrong
prela.flush("soon")  # wrong
prela.kept_traces()  # wrong
prela.decisions(group=7)  # wrong
missing = prela.no_such_name  # wrong
traced("one")  # wrong
length: int = traced(1)  # wrong
prela.wrap(traced)("one")  # wrong
