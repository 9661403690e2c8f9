"""A TCP proxy in front of a real broker that passes its answers on late, as an overloaded broker would."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LENGTH = struct.Struct(">i")


class SlowBroker:
    """The proxy of one broker. Brokers name their address in answers, so it is replaced there by that of the proxy.

    Args:
        bootstrap: `host:port` of the broker.
    """

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._host, self._port = host, int(port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        """How late each answer is. It may change at any time, also for answers that are delayed already."""
        self.delayed = 0
        """How many answers were late."""

    @property
    def bootstrap(self) -> str:
        """`host:port` of the proxy."""
        assert self._server is not None
        return f"{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._serve, self._host, 0)

    async def aclose(self) -> None:
        """Cut all connections."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            from_broker, to_broker = await asyncio.open_connection(self._host, self._port)
            try:
                async with asyncio.TaskGroup() as tasks:
                    answers: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                    tasks.create_task(self._requests(reader, to_broker))
                    tasks.create_task(self._receive(from_broker, answers))
                    tasks.create_task(self._pass_on(answers, writer))
            finally:
                to_broker.close()
        except* (OSError, EOFError):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _requests(reader: asyncio.StreamReader, to_broker: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            to_broker.write(data)
            await to_broker.drain()
        raise EOFError

    async def _receive(self, from_broker: asyncio.StreamReader, answers: "asyncio.Queue[tuple[float, bytes]]") -> None:
        assert self._server is not None
        mine = self._host.encode() + _LENGTH.pack(self._server.sockets[0].getsockname()[1])
        theirs = self._host.encode() + _LENGTH.pack(self._port)
        loop = asyncio.get_running_loop()
        while True:
            head = await from_broker.readexactly(_LENGTH.size)
            answer = await from_broker.readexactly(_LENGTH.unpack(head)[0])
            answers.put_nowait((loop.time(), head + answer.replace(theirs, mine)))

    async def _pass_on(self, answers: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrived, answer = await answers.get()
            late = False
            while (rest := arrived + self.delay_s - loop.time()) > 0:
                late = True
                await asyncio.sleep(min(rest, 0.05))
            self.delayed += late
            writer.write(answer)
            await writer.drain()


@asynccontextmanager
async def slow_broker(bootstrap: str) -> AsyncIterator[SlowBroker]:
    """A proxy for the length of the block."""
    proxy = SlowBroker(bootstrap)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.aclose()
