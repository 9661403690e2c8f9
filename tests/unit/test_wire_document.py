"""docs/wire.md is true: its tables are the Structs, its examples are what is encoded, and a reader can be written from it."""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from prela_stream.codec.decisions import DECISIONS_FORMAT
from prela_stream.codec.dlq import DLQ_FORMAT, DeadLetter
from prela_stream.codec.sampled import SAMPLED_FORMAT, KeptFragment
from prela_stream.codec.spans import SPANS_FORMAT, decode_batch, decode_span, encode_batch
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.model import span as model
from prela_stream.model.decision import Basis, Decision, TraceSummary, Trigger
from prela_stream.model.ids import murmur2
from prela_stream.model.span import ItemKind, Resource, SpanHead
from tests.support import plain_reader
from tests.support.wire_examples import PARTITION, PARTITIONS, RECORDS, RESOURCE, SPAN

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


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
        ("sampled", KeptFragment),
        ("decisions", Decision),
        ("Summary", TraceSummary),
        ("dlq", DeadLetter),
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
        name: getattr(model, name) for name in ("COUNTED", "AFTER_END", "REMOTE_PARENT", "BY_PROCESSOR", "NOT_COUNTED")
    }
    meanings = {row[1]: row[4] for row in rows("Item")}
    assert meanings["status"] == ", ".join(f"{code} {status}" for code, status in enumerate(model.SPAN_STATUSES))
    assert meanings["span_type"] == ", ".join(f"{code} {kind}" for code, kind in enumerate(model.SPAN_TYPES))
    triggers = next(row[4] for row in rows("decisions") if row[1] == "trigger")
    assert re.findall(r"`?(\w+)`?(?:,|$)", triggers.removeprefix("why now: ")) == [str(trigger) for trigger in Trigger]
    assert [row[0] for row in rows("Basis")] == [str(basis) for basis in Basis]


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
                batch = decode_batch(encode_batch(b"\x80", [raw]))
                assert (len(batch.heads), len(batch.bad)) == ((1, 0) if good else (0, 1)), (name, value)


def test_the_formats_are_those_of_the_code() -> None:
    documented = {row[0]: row[4] for row in rows("Topics")}
    formats = (SPANS_FORMAT, SAMPLED_FORMAT, DECISIONS_FORMAT, DLQ_FORMAT)
    assert list(documented.values()) == [form.decode() for form in formats]
    assert f"header `{FORMAT_HEADER}`" in TEXT


def section(heading: str) -> str:
    """The text under a heading of the third level."""
    return re.split(r"^#{2,3} ", TEXT.split(f"\n### {heading}\n")[1], flags=re.MULTILINE)[0]


def block(heading: str, language: str) -> str:
    """The one block of a language under a heading."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", section(heading), flags=re.MULTILINE | re.DOTALL)
    return str(found)


def as_json(value: object) -> Any:
    """Bytes as hex, as the page writes them."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: as_json(one) for name, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, list | tuple) else value


def sparse(item: dict[str, Any]) -> dict[str, Any]:
    """An item without the fields that have their default."""
    defaults = {**plain_reader.ITEM, "status": "PENDING", "span_type": "CUSTOM"}
    return {name: value for name, value in item.items() if value != defaults[name]}


@pytest.mark.parametrize("heading", RECORDS)
def test_an_example_is_byte_for_byte_what_the_encoder_writes(heading: str) -> None:
    value = bytes.fromhex(block(heading, "hex"))
    assert value == RECORDS[heading]
    assert f"\n{len(value)} bytes:\n" in section(heading)


@pytest.mark.parametrize("heading", RECORDS)
def test_an_example_is_explained_to_the_last_byte(heading: str) -> None:
    table = rows(heading)
    assert bytes.fromhex("".join(row[0] for row in table)) == RECORDS[heading]
    explained = [row for row in table if row[2]]
    assert len(explained) >= 1
    for raw, _, value in explained:
        assert as_json(msgpack.unpackb(bytes.fromhex(raw))) == json.loads(value)


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("A record of spans", SpanHead.__struct_fields__),
        ("A record of sampled", (*Decision.__struct_fields__, *TraceSummary.__struct_fields__)),
        ("A record of decisions", (*Decision.__struct_fields__, *TraceSummary.__struct_fields__)),
        ("A record of dlq", DeadLetter.__struct_fields__),
    ],
)
def test_an_example_names_every_field_once(heading: str, names: tuple[str, ...]) -> None:
    named = [row[1].split("`")[0] for row in rows(heading)]
    assert sorted(name for name in named if name in names) == sorted(names)


@pytest.mark.parametrize("heading", RECORDS)
def test_the_plain_reader_reads_an_example_as_the_page_does(heading: str) -> None:
    topic = "spans" if heading == "Items that are no spans" else heading.removeprefix("A record of ")
    read = as_json(plain_reader.READERS[f"{topic}/1".encode()](RECORDS[heading]))
    if heading == "Items that are no spans":
        read["items"] = [sparse(item) for item in read["items"]]
        assert [item["kind"] for item in read["items"]] == [kind.name for kind in list(ItemKind)[1:]]
    assert read == json.loads(block(heading, "json"))


def test_the_example_span_is_read_as_it_was_made_and_is_in_the_documented_partition() -> None:
    batch = decode_batch(RECORDS["A record of spans"])
    assert decode_span(batch.raws[0], RESOURCE) == msgspec.structs.replace(SPAN, resource=RESOURCE)
    assert f"It belongs to partition {PARTITION} of {PARTITIONS} of" in TEXT


def test_a_decision_id_is_computed_as_documented() -> None:
    example = json.loads(block("A record of sampled", "json"))["decision"]
    text = f"prela.spans\0{PARTITION}\0{example['first_offset']}\0".encode() + bytes.fromhex(example["trace_id"])
    assert hashlib.blake2b(text, digest_size=16).hexdigest() == example["decision_id"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # of Apache Kafka's UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafkas_java_client(data: bytes, expected: int) -> None:
    for function in (murmur2, plain_reader.murmur2):
        assert function(data) == expected % 2**32


def test_the_plain_reader_skips_what_later_versions_append_and_refuses_another_version() -> None:
    item = [0, b"t" * 16, b"s" * 8]
    later = [*item, *list(plain_reader.ITEM.values())[3:], "more"]
    value = plain_reader.write_spans({}, [item, [9, {"what": "ever"}], later])
    read = plain_reader.read_spans(value)["items"]
    assert [one["trace_id"] for one in read] == [b"t" * 16] * 2
    assert (read[0]["span_type"], read[0]["status"], read[0]["attributes"]) == ("CUSTOM", "PENDING", {})
    for bad in (b"", b"\x02" + value[1:]):
        with pytest.raises(plain_reader.PoisonError):
            plain_reader.read_spans(bad)


def test_the_plain_reader_imports_nothing_of_this_package() -> None:
    source = Path(plain_reader.__file__).read_text(encoding="utf-8")
    imported = {name.split(".")[0] for name in re.findall(r"^(?:from|import) (\S+)", source, re.MULTILINE)}
    assert imported <= {*sys.stdlib_module_names, "msgpack"}
