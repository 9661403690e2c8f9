"""Kept decisions as about 70 bytes each: late spans of a kept trace are written with its decision for the whole late window.

What the decisions of a policy set have in common is stored once, and the id of a decision is computed. A text that was seen
before is stored once. A text that differs in each trace is part of each packed decision.
"""

from typing import Any, Final

import msgspec

from prela_stream.model.decision import Basis, Decision, TraceSummary, Trigger, decision_id_of
from prela_stream.transport.base import TopicPartition

_MOST_KNOWN: Final = 1_024
"""Values that are stored once, and texts that are recognised when they are seen again."""
_DIGEST_DIGITS: Final = frozenset("0123456789abcdef")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple)


class PackedDecisions:
    """Packs and unpacks the kept decisions of one partition.

    Args:
        source: The partition.
    """

    def __init__(self, source: TopicPartition) -> None:
        self._source = source
        self._codes: dict[Any, int] = {}
        self._known: list[Any] = []
        self._seen: set[str] = set()
        self._began_ms: int | None = None

    def pack(self, decision: Decision) -> bytes:
        """All of the decision except its trace id."""
        one, sum_ = decision, decision.summary
        if self._began_ms is None:
            self._began_ms = one.decided_at_ms
        common = (
            one.probability, one.threshold, one.weight, one.policy, one.trigger, one.complete, one.policy_version,
            one.weight_biased, one.repeated, one.basis,
        )  # fmt: skip
        derived = self._decision_id(one.trace_id, one.first_offset)
        shape = sum_.shape_hash
        fields = (
            self._code(common),
            self._text(one.reason), self._text(sum_.root_name), self._text(sum_.service), one.first_offset,
            one.cut_offset - one.first_offset, one.decided_at_ms - self._began_ms, sum_.start_ns, sum_.duration_ns,
            sum_.spans, sum_.errors, sum_.input_tokens, sum_.output_tokens, sum_.cost_usd,
            bytes.fromhex(shape) if len(shape) == 32 and _DIGEST_DIGITS.issuperset(shape) else shape,
            sum_.outside_parent,
        )  # fmt: skip
        return _encoder.encode(fields if one.decision_id == derived else (*fields, one.decision_id))

    def unpack(self, trace_id: bytes, packed: bytes) -> Decision:
        """The decision on this trace."""
        (
            common, reason, root_name, service, first_offset, cut, decided_ms, start_ns, duration_ns, spans, errors,
            input_tokens, output_tokens, cost_usd, shape, outside_parent, *other_id,
        ) = _decoder.decode(packed)  # fmt: skip
        (
            probability, threshold, weight, policy, trigger, complete, policy_version, weight_biased, repeated, basis,
        ) = self._value(common)  # fmt: skip
        assert self._began_ms is not None  # it was packed here
        return Decision(
            trace_id=trace_id,
            decision_id=other_id[0] if other_id else self._decision_id(trace_id, first_offset),
            kept=True,
            probability=probability,
            threshold=threshold,
            weight=weight,
            policy=policy,
            reason=self._value(reason),
            trigger=Trigger(trigger),
            complete=complete,
            first_offset=first_offset,
            cut_offset=first_offset + cut,
            decided_at_ms=self._began_ms + decided_ms,
            policy_version=policy_version,
            summary=TraceSummary(
                root_name=self._value(root_name),
                service=self._value(service),
                start_ns=start_ns,
                duration_ns=duration_ns,
                spans=spans,
                errors=errors,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cost_usd=cost_usd,
                shape_hash=shape.hex() if isinstance(shape, bytes) else shape,
                outside_parent=outside_parent,
            ),
            weight_biased=weight_biased,
            repeated=repeated,
            basis=None if basis is None else Basis(basis),
        )

    def _decision_id(self, trace_id: bytes, first_offset: int) -> bytes:
        return decision_id_of(self._source.topic, self._source.partition, trace_id, first_offset)

    def _text(self, text: str) -> Any:
        """The code of a text that was seen before, or the text."""
        if text in self._codes or text in self._seen:
            return self._code(text)
        if len(self._seen) >= _MOST_KNOWN:
            self._seen.clear()
        self._seen.add(text)
        return text

    def _code(self, value: Any) -> Any:
        """The code of a value; the value if too many are known."""
        code = self._codes.get(value)
        if code is None:
            if len(self._known) >= _MOST_KNOWN:
                return value
            code = self._codes[value] = len(self._known)
            self._known.append(value)
        return code

    def _value(self, code: Any) -> Any:
        return self._known[code] if isinstance(code, int) else code
