"""docs/architecture.md is true: every module, class and method that it names exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = sorted(path.stem for path in (ROOT / "prela_stream").iterdir() if not path.stem.startswith("_"))
NAMES = sorted(set(re.findall(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+", PAGE)) - {"prela.toml"})


def resolve(name: str) -> object:
    """The module, class or method with this path below the package; raises LookupError."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["prela_stream", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None) or _annotated(found, part)
        return found
    raise LookupError(name)


def _annotated(owner: object, name: str) -> object:
    annotations = getattr(owner, "__annotations__", {})
    if name not in annotations:
        raise LookupError(name)
    return annotations[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_page_exists(name: str) -> None:
    assert resolve(name) is not None


def test_the_page_names_the_stations_of_each_path() -> None:
    assert PAGE.count("```text") >= 6
    assert len(NAMES) > 40


def test_a_wrong_name_is_noticed() -> None:
    with pytest.raises(LookupError):
        resolve("worker.partition.PartitionState.settle_everything")
