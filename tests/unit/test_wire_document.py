"""docs/wire.md says what the code does: its tables are those of the Structs, its example is the encoder's output."""

import re
from pathlib import Path

import msgspec
import pytest

from prela_stream import codec
from prela_stream.model import span as model
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind, Resource, SpanData, SpanHead, SpanStatus, SpanType

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
EXAMPLE = SpanData(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    name="chat",
    span_type=SpanType.LLM,
    status=SpanStatus.SUCCESS,
    start_ns=1_700_000_000_000_000_000,
    duration_ns=1_000_000_000,
    child_count=0,
    inject_count=0,
    attributes={"gen_ai.request.model": "m"},
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its header."""
    section = re.split(rf"^#+ {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1]
    table = re.search(r"(^\|.*\n)+", section, flags=re.MULTILINE)
    assert table is not None
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("Item", SpanHead),
        ("sampled", codec.KeptFragment),
        ("decisions", Decision),
        ("Summary", TraceSummary),
        ("dlq", codec.DeadLetter),
    ],
)
def test_the_tables_of_arrays_are_those_of_the_structs(heading: str, struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.array_like
    fields = msgspec.structs.fields(struct)
    assert [(row[0], row[1]) for row in rows(heading)] == [(str(i), field.name) for i, field in enumerate(fields)]
    documented = [row[3] != "required" for row in rows(heading)]
    assert documented == [not field.required for field in fields]


def test_the_table_of_the_resource_is_that_of_the_struct() -> None:
    assert [row[0] for row in rows("Resource")] == [field.encode_name for field in msgspec.structs.fields(Resource)]


def test_kinds_flags_and_codes_are_those_of_the_code() -> None:
    assert [(row[0], row[1]) for row in rows("Kinds")] == [(str(int(kind)), kind.name) for kind in ItemKind]
    assert {row[1]: int(row[0]) for row in rows("Flags")} == {
        name: getattr(model, name) for name in ("COUNTED", "AFTER_END", "REMOTE_PARENT")
    }
    meanings = {row[1]: row[4] for row in rows("Item")}
    assert meanings["status"] == ", ".join(f"{code} {status}" for code, status in enumerate(model.SPAN_STATUSES))
    assert meanings["span_type"] == ", ".join(f"{code} {kind}" for code, kind in enumerate(model.SPAN_TYPES))
    triggers = next(row[4] for row in rows("decisions") if row[1] == "trigger")
    assert re.findall(r"`?(\w+)`?(?:,|$)", triggers.removeprefix("why now: ")) == [str(trigger) for trigger in Trigger]


def test_the_ranges_are_those_that_the_decoder_checks() -> None:
    for names, limits in rows("Numbers"):
        found = re.match(r"0 … (?:2\^(\d+) - 1|(\d+))", limits)
        assert found is not None
        top = 2 ** int(found[1]) - 1 if found[1] else int(found[2])
        for name in re.findall(r"\w+", names.replace(" of an item", "")):
            item = [0, b"t" * 16, b"s" * 8, None, 0, 1, 0, None, None, None, 5, 0, None, "", None, None]
            place = SpanHead.__struct_fields__.index(name)
            for value, good in ((0, True), (top, True), (-1, False), (top + 1, False)):
                item[place] = value
                raw = msgspec.msgpack.encode(item)
                batch = codec.decode_batch(codec.encode_batch(b"\x80", [raw]))
                assert (len(batch.heads), len(batch.bad)) == ((1, 0) if good else (0, 1)), (name, value)


def test_the_formats_are_those_of_the_code() -> None:
    said = {row[0]: row[4] for row in rows("Topics")}
    formats = (codec.SPANS_FORMAT, codec.SAMPLED_FORMAT, codec.DECISIONS_FORMAT, codec.DLQ_FORMAT)
    assert list(said.values()) == [form.decode() for form in formats] + ["none"]
    assert f"header `{codec.FORMAT_HEADER}`" in TEXT


def test_the_example_is_what_the_encoder_writes() -> None:
    block = re.search(r"```hex\n(.*?)```", TEXT, flags=re.DOTALL)
    assert block is not None
    value = bytes.fromhex("".join(line[:54] for line in block[1].splitlines()))
    resource = Resource(service_name="shop")
    assert value == codec.encode_batch(codec.encode_resource(resource), [codec.encode_span(EXAMPLE)])
    assert f"with one LLM span: {len(value)} bytes" in TEXT
    batch = codec.decode_batch(value)
    assert codec.decode_span(batch.raws[0], codec.decode_resource(batch.resource)) == msgspec.structs.replace(
        EXAMPLE, resource=resource
    )
    partition = partition_of(bytes.fromhex(EXAMPLE.trace_id), 8)
    assert f"Its trace belongs to partition {partition} of 8." in TEXT
