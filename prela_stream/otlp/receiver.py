"""Takes requests, whatever carried them: reads the spans, appends them to the log, and reports what was rejected."""

import logging
from time import monotonic
from typing import Final

import anyio
import msgspec

from prela_stream import telemetry
from prela_stream.errors import CodecError, PrelaError, TransportError, guard
from prela_stream.otel.otlp.limits import check_spans
from prela_stream.otel.otlp.requests import Encoding, read_request, signal_of, wrong_signal
from prela_stream.otel.spans import Rejected
from prela_stream.otlp.records import SpanRecords
from prela_stream.otlp.sender import QueueFullError, Sender
from prela_stream.privacy.rules import Privacy
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger("prela_stream.otlp")

_SLICE_S: Final = 0.005
"""How long spans are read before other tasks of the event loop may run."""
_SPANS_A_LOOK: Final = 16
_LOG_S: Final = 60.0
_DEFECT: Final = "it could not be converted, because of a defect that the log names"


class DefectError(PrelaError):
    """A defect of this program; the log has it. Nothing is acknowledged."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a request whose records are acknowledged."""

    spans: int
    """Accepted spans."""
    rejected: int = 0
    message: str = ""
    """Why spans were rejected, for their sender; empty if none was."""


class RejectionLog:
    """Logs rejections at most once a minute: most exporters do not report a partial success."""

    def __init__(self) -> None:
        self._next = 0.0
        self._unlogged = 0

    def add(self, entry: str, rejected: int, first: Rejected) -> None:
        """Log how many were rejected since the last line, and one of them. The caller counts them in the metric."""
        self._unlogged += rejected
        if monotonic() >= self._next:
            self._next = monotonic() + _LOG_S
            logger.warning(
                "%d spans that came by %s were rejected, the last one at %s: %s. Rejections are counted in "
                "prela_otlp_rejected_spans_total and logged once a minute.",
                self._unlogged,
                entry,
                first.place,
                first.reason,
            )
            self._unlogged = 0


class Receiver:
    """Takes requests.

    Args:
        sender: Appends the records.
        topics: Partitions and limits of `spans`.
        privacy: What is removed from each span.
    """

    def __init__(self, sender: Sender, topics: TopicOptions, privacy: Privacy) -> None:
        self.sender = sender
        self._topics = topics
        self._privacy = privacy
        self._rejections = RejectionLog()
        self._converting = anyio.Lock()
        """Requests are converted one after the other: together they would be no faster and need more memory."""

    async def take(self, body: bytes, encoding: Encoding, entry: str) -> Taken:
        """Append the spans of a request. Returns once they are acknowledged.

        Args:
            body: The request, decompressed.
            encoding: Of the body.
            entry: `http` or `grpc`, for the metrics.

        Raises:
            CodecError: The body is no request for traces, or not one of its spans is valid. The text is for the sender.
            QueueFullError: Too much waits already.
            TransportError: The spans may not be stored.
            DefectError: They may not be stored, and the reason is a defect of this program.
        """
        failure: PrelaError = DefectError(
            "the spans were not stored, because of a defect that the log of this service names"
        )
        with guard("otlp.request"):
            try:
                return await self._take(body, encoding, entry)
            except (CodecError, QueueFullError, TransportError) as error:
                failure = error
        try:
            raise failure
        finally:
            del failure  # its traceback has this frame, and both would keep the body until the next garbage collection

    async def _take(self, body: bytes, encoding: Encoding, entry: str) -> Taken:
        async with self._converting:
            records, rejected, first = await self._convert(body, encoding)
        spans = records.spans
        if first is not None:
            telemetry.OTLP_REJECTED.add(rejected, entry)
            self._rejections.add(entry, rejected, first)
            if not spans:
                raise CodecError(self._all_rejected(body, encoding, rejected, first))
        await self.sender.send(records.take())
        telemetry.OTLP_SPANS.add(spans, entry)
        if first is None:
            return Taken(spans=spans)
        return Taken(spans=spans, rejected=rejected, message=_summary(rejected, spans + rejected, first))

    async def _convert(self, body: bytes, encoding: Encoding) -> tuple[SpanRecords, int, Rejected | None]:
        records = SpanRecords(self._topics, self._privacy)
        rejected, first = 0, None
        until = monotonic() + _SLICE_S
        for number, one in enumerate(read_request(body, encoding)):
            if isinstance(one, Rejected):
                problem = one
            elif records.add_safely(one):
                problem = None
            else:
                problem = Rejected(place=f"span {number}", reason=_DEFECT)
            if problem is not None:
                rejected += 1
                first = first or problem
            if not number % _SPANS_A_LOOK and monotonic() >= until:
                check_spans(number)
                await anyio.lowlevel.checkpoint()
                until = monotonic() + _SLICE_S
        return records, rejected, first

    def _all_rejected(self, body: bytes, encoding: Encoding, rejected: int, first: Rejected) -> str:
        signal = signal_of(body) if encoding == "protobuf" else ""
        return wrong_signal(signal) if signal else _summary(rejected, rejected, first)


def _summary(rejected: int, all_spans: int, first: Rejected) -> str:
    return f"{rejected:,} of {all_spans:,} spans were rejected; the first, {first.place}: {first.reason}"
