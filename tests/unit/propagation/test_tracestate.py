"""The `tracestate` header: limits of W3C, and invalid members."""

from prela_stream.propagation import tracestate


def test_the_header_keeps_to_its_limits_and_drops_long_members_first() -> None:
    others = (("long", "x" * 200), *((f"k{i}", "v" * 20) for i in range(40)))
    header = tracestate.render(tracestate.TraceState(others, parent_span_id=bytes(range(8)), ordinal=12))
    parts = header.split(",")
    assert parts[0] == "prela=0001020304050607-12"
    assert len(header) <= 512
    assert len(parts) <= 32
    assert parts[1] == f"k0={'v' * 20}"


def test_repeated_and_invalid_members_are_left_out() -> None:
    state = tracestate.parse("a=1,a=2,B=3,=4,b,c=5, d=6\t,ot=th:zz;rv:12,prela=nonsense")
    assert state == tracestate.TraceState((("a", "1"), ("c", "5"), ("d", "6")))
