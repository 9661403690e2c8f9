"""A Kafka in the foreground: `python -m deploy.kafka [--brokers 3] [--port 9092] [--data DIR]`.

Standard output gets one line, the bootstrap servers, when every broker answers. SIGTERM and Ctrl-C stop it; without `--data`
no data remain. If a broker dies, the end of its log is printed and the exit code is 1; 2 means that this machine cannot
run Kafka.
"""

import argparse
import fcntl
import signal
import sys
import time
from pathlib import Path
from typing import IO

from deploy.kafka.cluster import QUICK_START, THROUGHPUT, KafkaCluster, prepare
from deploy.kafka.errors import BrokerError, KafkaMissingError
from deploy.kafka.jars import kafka_version


def main() -> int:
    """Run until a signal stops it; return the exit code."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        if options.prepare:
            prepare(*QUICK_START)
            return 0
        cluster = KafkaCluster(
            options.brokers,
            data_dir=options.data,
            ports=options.port,
            properties=dict(setting.split("=", 1) for setting in options.set),
            heap_mb=options.heap,
            jvm=THROUGHPUT if options.throughput else QUICK_START,
        )
    except KafkaMissingError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        began = time.monotonic()
        cluster.start()
        print(cluster.bootstrap, flush=True)
        _introduce(cluster, time.monotonic() - began)
        _watch(cluster, options.while_shared)
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    else:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is stopping already
        cluster.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.kafka", description=f"Apache Kafka {kafka_version()} on this machine, without Docker."
    )
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--port", type=int, nargs="+", default=(), help="one per broker; free ones if not given")
    parser.add_argument("--data", type=Path, help="keep data here; a temporary folder if not given")
    parser.add_argument("--heap", type=int, default=384, metavar="MIB", help="heap of each broker (%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a broker property; repeatable"
    )
    parser.add_argument("--throughput", action="store_true", help="all compilers and G1: a slower start, for benches")
    parser.add_argument(
        "--while-shared",
        type=Path,
        metavar="FILE",
        help="stop once no process holds a shared lock (flock) on this file",
    )
    parser.add_argument("--prepare", action="store_true", help="only fetch what is missing, so that starting is quick")
    options = parser.parse_args()
    if options.port and len(options.port) != options.brokers:
        parser.error(f"expected one port per broker, {options.brokers}, got {len(options.port)}: give as many, or none")
    if any("=" not in setting for setting in options.set):
        parser.error(f"expected --set NAME=VALUE, got {options.set}")
    return options


def _introduce(cluster: KafkaCluster, seconds: float) -> None:
    print(
        f"Kafka {kafka_version()} answers at {cluster.bootstrap} after {seconds:.1f} s; data in {cluster.data_dir}.\n"
        f"Tests use it with PRELA_TEST_BOOTSTRAP={cluster.bootstrap}; Ctrl-C stops it.",
        file=sys.stderr,
        flush=True,
    )


def _watch(cluster: KafkaCluster, shared: Path | None) -> None:
    """Return once no other process shares the file; raise if a broker has ended."""
    if shared is None:
        while True:
            _pause(cluster)
    with shared.open("ab") as file:
        while not _is_free(file):
            _pause(cluster)
        cluster.close()  # under the lock: the next process that finds it free finds the ports free too


def _pause(cluster: KafkaCluster) -> None:
    time.sleep(0.1)
    cluster.check()


def _is_free(file: IO[bytes]) -> bool:
    """Whether no other process holds a lock on the file; if so, this process holds it from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
