"""BoundedQueue: bounds, overflow policies, waiting and waking, threads, interrupts and finalizers."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from prela_stream.delivery.batch import Entry
from tests.unit.delivery.queues import make_queue, trace


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)


def test_items_leave_in_order_with_unbroken_sequence() -> None:
    queue, drops = make_queue()
    for number in range(5):
        queue.put(trace(number), b"x")
    assert [(entry[0], entry[1]) for entry in queue.take(3) + queue.take(9)] == [(n + 1, trace(n)) for n in range(5)]
    assert not drops
    assert not len(queue)


def test_a_tenth_of_the_room_is_kept_for_reserved_items() -> None:
    queue, drops = make_queue(items=20)
    for number in range(19):
        queue.put(trace(number), b"x")
    assert len(queue) == 18
    assert drops == [(0, trace(18), "queue_full")]
    for number in range(3):
        queue.put(trace(100 + number), b"x", reserved=True)
    assert len(queue) == 20
    assert drops[1:] == [(0, trace(102), "queue_full")]


def test_bytes_are_bounded_too() -> None:
    queue, drops = make_queue(size=1_000)
    queue.put(trace(1), b"x" * 900)
    queue.put(trace(2), b"x")
    assert drops == [(0, trace(2), "queue_full")]
    queue.put(trace(3), b"x" * 100, reserved=True)
    assert queue.held_bytes == 1_000
    queue.put(trace(4), b"x", reserved=True)
    assert len(drops) == 2


def test_taken_items_hold_their_room_until_they_are_released() -> None:
    queue, drops = make_queue(items=10)
    for number in range(9):
        queue.put(trace(number), b"xx")
    taken = queue.take(9)
    queue.put(trace(9), b"xx")
    assert len(drops) == 1
    queue.release(len(taken), 2 * len(taken))
    queue.put(trace(10), b"xx")
    assert len(drops) == 1
    assert queue.held_items == 1
    assert queue.held_bytes == 2


def test_drop_oldest_keeps_the_newest_and_drops_reserved_items_last() -> None:
    queue, drops = make_queue(items=10, overflow="drop_oldest")
    queue.put(trace(0), b"x", reserved=True)
    for number in range(1, 15):
        queue.put(trace(number), b"x")
    left = queue.take(100)
    assert [entry[1] for entry in left] == [trace(0), *(trace(n) for n in range(7, 15))]
    assert drops == [(n + 1, trace(n), "queue_full") for n in range(1, 7)]


def test_drop_oldest_drops_reserved_items_only_for_reserved_ones() -> None:
    queue, drops = make_queue(items=10, overflow="drop_oldest")
    for number in range(10):
        queue.put(trace(number), b"x", reserved=True)
    queue.put(trace(10), b"x")
    assert drops == [(0, trace(10), "queue_full")]
    queue.put(trace(11), b"x", reserved=True)
    assert drops[1:] == [(1, trace(0), "queue_full")]
    assert [entry[1] for entry in queue.take(99)] == [*(trace(n) for n in range(1, 10)), trace(11)]


def test_drop_oldest_drops_nothing_for_an_item_that_can_never_fit() -> None:
    queue, drops = make_queue(size=1_000, overflow="drop_oldest")
    queue.put(trace(1), b"x" * 100)
    queue.put(trace(2), b"x" * 901)
    assert drops == [(0, trace(2), "queue_full")]
    assert len(queue) == 1


def test_block_waits_for_room() -> None:
    queue, drops = make_queue(items=1, overflow="block", timeout=30.0)
    queue.put(trace(0), b"x")
    blocked = threading.Thread(target=queue.put, args=(trace(1), b"x"))
    blocked.start()
    wait_until(lambda: bool(queue._room._waiters))  # type: ignore[attr-defined]  # how many wait has no public name
    queue.release(len(queue.take(1)), 1)
    blocked.join(10)
    assert [entry[1] for entry in queue.take(9)] == [trace(1)]
    assert not drops


def test_block_gives_up_after_its_timeout() -> None:
    queue, drops = make_queue(items=1, overflow="block", timeout=0.05)
    queue.put(trace(0), b"x")
    began = time.monotonic()
    queue.put(trace(1), b"x")
    assert time.monotonic() - began >= 0.05
    assert drops == [(0, trace(1), "queue_full")]


def test_block_never_waits_on_an_event_loop() -> None:
    queue, drops = make_queue(items=1, overflow="block", timeout=30.0)

    async def record_two() -> None:
        queue.put(trace(0), b"x")
        queue.put(trace(1), b"x")

    began = time.monotonic()
    asyncio.run(record_two())
    assert time.monotonic() - began < 15
    assert drops == [(0, trace(1), "queue_full")]


def test_closing_ends_a_wait_and_drops_every_later_item() -> None:
    queue, drops = make_queue(items=1, overflow="block", timeout=30.0)
    queue.put(trace(0), b"x")
    blocked = threading.Thread(target=queue.put, args=(trace(1), b"x"))
    blocked.start()
    wait_until(lambda: bool(queue._room._waiters))  # type: ignore[attr-defined]  # how many wait has no public name
    queue.close()
    blocked.join(10)
    assert not blocked.is_alive()
    queue.put(trace(2), b"x", reserved=True)
    assert drops == [(0, trace(1), "shutdown"), (0, trace(2), "shutdown")]
    assert len(queue.take(9)) == 1


def test_the_sender_is_woken_once_at_the_requested_number() -> None:
    queue, _ = make_queue()
    woken: list[int] = []
    queue.attach(lambda: woken.append(len(queue)))
    assert queue.wake_at(3)
    for number in range(6):
        queue.put(trace(number), b"x")
    assert woken == [3]
    assert not queue.wake_at(6)


def test_a_wake_that_fails_does_not_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    queue, _ = make_queue()

    def explode() -> None:
        msg = "the loop is closed"
        raise RuntimeError(msg)

    queue.attach(explode)
    queue.wake_at(1)
    queue.put(trace(1), b"x")
    assert len(queue) == 1


def test_reset_frees_a_queue_whose_lock_another_thread_held() -> None:
    queue, _ = make_queue()
    queue.put(trace(1), b"x")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with queue.lock:
            held.set()
            free.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    queue.reset()
    queue.put(trace(2), b"x")
    free.set()
    holder.join(10)
    assert [entry[:2] for entry in queue.take(9)] == [(1, trace(2))]


def test_a_finalizer_may_record_while_its_thread_is_inside_put() -> None:
    """The garbage collector can run inside `put` and end spans there: the lock must let its own thread in again."""
    queue, drops = make_queue(items=1_000_000, size=1 << 40)

    class Ending:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            queue.put(trace(7), b"fin")

    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(2_000):
            Ending()
            queue.put(trace(number), b"x")
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    entries = queue.take(1 << 30)
    assert sum(entry[2] == b"fin" for entry in entries) == 2_000
    assert len(entries) == queue.accepted == 4_000
    assert queue.held_bytes == 2_000 * 1 + 2_000 * 3
    assert not drops


INTERRUPTS = """
import signal, threading
from prela_stream.delivery.queue import BoundedQueue

queue = BoundedQueue(max_items=1 << 40, max_bytes=1 << 50, overflow="drop_newest", block_timeout=0, on_drop=lambda *_: None)

def interrupt(_, __):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
hits = 0
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while True:
            queue.put(b"1" * 16, b"xyz")
    except KeyboardInterrupt:
        hits += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert hits == 300
other = threading.Thread(target=queue.put, args=(b"2" * 16, b"xyz"), daemon=True)
other.start()
other.join(10)
assert not other.is_alive(), "an interrupted put kept the lock"
entries = queue.take(1 << 40)
assert [entry[0] for entry in entries] == list(range(1, queue.accepted + 1))
assert queue.held_bytes == 3 * len(entries)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX timers")
def test_interrupts_inside_put_leave_the_lock_free_and_the_counts_right() -> None:
    """A Ctrl-C can hit any bytecode of `put`; afterwards other threads must still get in and nothing may be counted twice.

    It runs in a subprocess, because the timeout plugin uses the same alarm, and a tracer would be interrupted where no signal
    hits.
    """
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", INTERRUPTS], env=untraced, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_many_threads_lose_nothing_and_stay_within_the_bound() -> None:
    queue, drops = make_queue(items=500, size=1 << 30)
    taken: list[Entry] = []
    done = threading.Event()

    def record(number: int) -> None:
        for _ in range(500):
            queue.put(trace(number), b"x")

    def drain() -> None:
        while not done.is_set() or len(queue):
            assert queue.held_items <= 500
            entries = queue.take(64)
            taken.extend(entries)
            queue.release(len(entries), len(entries))

    drainer = threading.Thread(target=drain)
    drainer.start()
    threads = [threading.Thread(target=record, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    drainer.join(60)
    assert len(taken) + len(drops) == 64 * 500
    assert queue.accepted == len(taken)
    assert queue.refused == len(drops)
    assert sorted(entry[0] for entry in taken) == list(range(1, len(taken) + 1))
