"""Reads the metrics endpoint of a service as a Prometheus server does, and checks it as `promtool check metrics` does."""

import http.client
import random
import re
import socket
from collections.abc import Iterator, Mapping

import msgspec
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_NOT_BASE_UNITS = r"_(ms|milliseconds|us|ns|minutes|hours|days|kb|mb|kilobytes|megabytes|percent)(_|$)"


def free_address() -> str:
    """A loopback address on which nothing listens, outside the ports that the kernel gives to clients."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{port}"


def fetch(address: str, path: str = "/metrics", accept: str = "", timeout: float = 10.0) -> tuple[int, str]:
    """Status and body of one request. Raises OSError if nothing answers within `timeout` seconds."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(error) from error
    finally:
        connection.close()


class Scrape(msgspec.Struct, frozen=True):
    """The samples of one scrape: name and labels as Prometheus names them, and the value."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def of(cls, text: str) -> "Scrape":
        """Read the text format."""
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in read_text(text)
                for sample in family.samples
            }
        )

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name with these labels. A histogram has `…_count` and `…_sum`."""
        wanted = labels.items()
        return sum(value for (found, has), value in self.samples.items() if found == name and has >= wanted)

    def by(self, name: str, label: str) -> Mapping[str, float]:
        """The values of a metric by one of its labels."""
        values: dict[str, float] = {}
        for (found, labels), value in self.samples.items():
            if found == name:
                key = dict(labels)[label]
                values[key] = values.get(key, 0) + value
        return values


def described(text: str) -> set[str]:
    """The metrics of this project that have HELP and TYPE lines."""
    helped, typed = (set(re.findall(rf"^# {word} (prela_\w+) \S", text, re.MULTILINE)) for word in ("HELP", "TYPE"))
    return helped & typed


def lint(text: str, openmetrics: str) -> list[str]:
    """What is wrong with an exposition, by the rules of promtool. Raises ValueError if it cannot be parsed."""
    names = [family.name for family in read_text(text)]
    names_of_openmetrics = [family.name for family in read_openmetrics(openmetrics)]
    problems = [f"{name} is exposed twice" for name in {one for one in names if names.count(one) > 1}]
    if sorted(names) != sorted(names_of_openmetrics):
        problems.append("the two formats differ")
    for family in read_text(text):
        if family.name.startswith("prela_"):
            problems += _mistakes(family.name, family.type, family.documentation, [s.labels for s in family.samples])
    return problems


def _mistakes(name: str, kind: str, meaning: str, labels: list[dict[str, str]]) -> Iterator[str]:
    if not meaning:
        yield f"{name} has no help"
    if kind not in ("counter", "gauge", "histogram"):
        yield f"{name} has the type {kind}"
    if re.search(r"_(total|count|sum|bucket|info)$", name):
        yield f"{name}: the suffix is reserved"
    if re.search(r"_(counter|gauge|histogram|summary)(_|$)", name) or re.search(r"[A-Z]|:|__", name):
        yield f"{name}: has its type in its name, or characters that a name does not have"
    if re.search(_NOT_BASE_UNITS, name):
        yield f"{name} is not in a base unit"
    for found in labels:
        if kind != "histogram" and {"le", "quantile"} & set(found):
            yield f"{name} has a label of histograms"
