"""What keeps a local log from working, found without making one."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from prela_stream.errors import TransportError
from prela_stream.transport.findings import Finding, mistake, ok, skipped, wrong
from prela_stream.transport.local.transport import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import check_topics


async def findings(options: LocalOptions, topics: TopicOptions) -> AsyncIterator[Finding]:
    """Each check as it is done: the file, then the topics in it."""
    path = Path(options.path)
    found = place_for(path, "log file", "local.path")
    yield found
    if found.state == "wrong":
        yield skipped("topics", "the log file")
        return
    if not await anyio.Path(path).exists():
        yield ok("topics", "the first process that needs them makes them")
        return
    async with LocalTransport(options) as transport:
        try:
            existing = await transport.topics()
        except TransportError as error:
            yield mistake("topics", str(error))
            return
    # What is missing is made by whoever needs it; what is there stays as it is.
    mistakes = [line for line in check_topics(topics, existing) if line.partition(":")[0].split()[-1] in existing]
    for line in mistakes:
        yield mistake("topics", line)
    if not mistakes:
        yield ok("topics", f"{len(existing)} of prefix {topics.prefix}; what is missing is made when it is needed")


def place_for(path: Path, what: str, setting: str) -> Finding:
    """Whether a file is there and can be written, or can be made."""
    if path.exists():
        if not path.is_file():
            return wrong(
                what, expected=f"a file at {path}", came="something else", todo=f"name another path in {setting}"
            )
        if not os.access(path, os.R_OK | os.W_OK):
            todo = f"give this user the file, or name another path in {setting}"
            return wrong(what, expected=f"to be allowed to write {path}", came="no permission", todo=todo)
        return ok(what, f"{path} is there and can be written")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        todo = f"name another path in {setting}"
        return wrong(what, expected=f"to make {path}", came=f"a file where a folder has to be: {folder}", todo=todo)
    if not os.access(folder, os.W_OK | os.X_OK):
        todo = f"give this user the folder, or name another path in {setting}"
        return wrong(what, expected=f"to make {path}", came=f"no permission in {folder}", todo=todo)
    return ok(what, f"{path} is made when it is needed")
