"""Checks of the local log for `prela-stream doctor`. They create no file."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from prela_stream.errors import TransportError
from prela_stream.transport.findings import Finding, mistake, ok, skipped_after, wrong
from prela_stream.transport.local.transport import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import check_topics


async def findings(options: LocalOptions, topics: TopicOptions) -> AsyncIterator[Finding]:
    """Each finding as soon as its check is done: the file, then the topics in it."""
    path = Path(options.path)
    found = check_file(path, "log file", "local.path")
    yield found
    if found.state == "wrong":
        yield skipped_after("topics", "log file check")
        return
    if not await anyio.Path(path).exists():
        yield ok("topics", "the first process that needs them creates them")
        return
    async with LocalTransport(options) as transport:
        try:
            existing = await transport.topics()
        except TransportError as error:
            yield mistake("topics", str(error))
            return
    # Missing topics are created by the process that needs them; existing ones are not changed.
    mistakes = [line for line in check_topics(topics, existing) if line.partition(":")[0].split()[-1] in existing]
    for line in mistakes:
        yield mistake("topics", line)
    if not mistakes:
        yield ok("topics", f"{len(existing)} of prefix {topics.prefix}; missing ones are created when they are needed")


def check_file(path: Path, what: str, setting: str) -> Finding:
    """Whether a file can be written, or can be created if it does not exist."""
    path = path.absolute()
    try:
        return _check_file(path, what, setting)
    except OSError as error:  # for instance a folder above it that this user may not search
        todo = f"give this user access to its folder, or set {setting} to another path"
        return wrong(what, expected=f"access to {path}", came=str(error.strerror or error), todo=todo)


def _check_file(path: Path, what: str, setting: str) -> Finding:
    if path.exists():
        if not path.is_file():
            todo = f"set {setting} to another path"
            return wrong(what, expected=f"a file at {path}", came="something else", todo=todo)
        if not os.access(path, os.R_OK | os.W_OK):
            todo = f"give this user access to the file, or set {setting} to another path"
            return wrong(what, expected=f"permission to write {path}", came="no permission", todo=todo)
        return ok(what, f"{path} exists and can be written")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        todo = f"set {setting} to another path"
        return wrong(what, expected=f"to create {path}", came=f"a file instead of a folder: {folder}", todo=todo)
    if not os.access(folder, os.W_OK | os.X_OK):
        todo = f"give this user access to the folder, or set {setting} to another path"
        return wrong(what, expected=f"to create {path}", came=f"no permission in {folder}", todo=todo)
    return ok(what, f"{path} is created when it is needed")
