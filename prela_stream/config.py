"""Settings: the components' own options put together, read from a TOML file and from `PRELA_*` variables.

A file says `[assembly] settle_ms = 500`, the environment `PRELA_ASSEMBLY_SETTLE_MS=500`; the environment wins. Unknown keys of a
file are errors that name the nearest right one; unknown variables are a warning, since other programs may use the prefix. Whoever
names Kafka's brokers (`PRELA_KAFKA_BOOTSTRAP`) and no transport means Kafka.
"""

import difflib
import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.delivery.options import PipelineOptions
from prela_stream.errors import ConfigurationError
from prela_stream.privacy.options import PrivacyOptions
from prela_stream.sinks.settings import SinkSettings, default_sinks, read_sinks
from prela_stream.transport.options import KafkaOptions, LocalOptions, TopicOptions
from prela_stream.worker.options import WorkerOptions

logger = logging.getLogger("prela_stream")

ENV_PREFIX = "PRELA_"
DEFAULT_DIRECTORY = ".prela"
DEFAULT_FILE = "prela.toml"
_NOT_SETTINGS = frozenset(
    {
        *("PRELA_STRICT", "PRELA_CONFIG", "PRELA_TEST_BOOTSTRAP"),
        # read by `init()` itself; of the ancestor SDK, and told there if they have no effect
        *("PRELA_AUTO_INSTRUMENT", "PRELA_DEBUG", "PRELA_PROJECT_ID", "PRELA_EXPORTER", "PRELA_TRACE_DIR"),
        *("PRELA_HTTP_ENDPOINT", "PRELA_API_KEY", "PRELA_CAPTURE_REPLAY", "PRELA_N8N_WEBHOOK_PORT"),
    }
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Each section belongs to the component that reads it."""

    service_name: str = ""
    """What this process calls itself in its spans; empty: the name of the program."""
    directory: str = DEFAULT_DIRECTORY
    """Folder of the local transport and the store."""
    transport: Literal["local", "kafka"] = "local"
    """What carries the Records; where `kafka.bootstrap` is set and this is not, it is "kafka"."""
    policies_file: str | None = None
    """TOML file of the sampling policies; None: the default policies."""
    sample_rate: float = 1.0
    """Head sampling: the share of traces that is recorded at all, in [0, 1]."""
    capture_content: bool = True
    """Whether prompts, answers and tool arguments are recorded."""
    topics: TopicOptions = TopicOptions()
    local: LocalOptions = LocalOptions()
    kafka: KafkaOptions = KafkaOptions()
    pipeline: PipelineOptions = PipelineOptions()
    privacy: PrivacyOptions = PrivacyOptions()
    assembly: AssemblyOptions = AssemblyOptions()
    worker: WorkerOptions = WorkerOptions()
    sink: tuple[SinkSettings, ...] = default_sinks(DEFAULT_DIRECTORY)
    """The `[[sink]]` tables, or the JSON array of tables in `PRELA_SINK`. `traces …` reads the first one that is a store."""


def load_settings(
    path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings.

    Args:
        path: A TOML file; None: what `PRELA_CONFIG` names, else `prela.toml` in the working directory if there is one.
        env: The environment; None: this process's.
        overrides: Top-level keys that win over both, as `init()` and the command line give them.

    Raises:
        ConfigurationError: with the place of every mistake.
    """
    env = os.environ if env is None else env
    raw = _read_file(path or env.get("PRELA_CONFIG") or None)
    _apply_env(raw, env)
    raw.update(overrides or {})
    directory = raw.get("directory", DEFAULT_DIRECTORY)
    if isinstance(directory, str):  # what else it may be is refused below
        raw.setdefault("local", {}).setdefault("path", str(Path(directory) / "log.db"))
    sinks = read_sinks(raw.pop("sink", [{}]), str(directory))
    if sinks.mistakes:
        raise ConfigurationError("settings: " + "; ".join(f"{path}: {problem}" for path, problem in sinks.mistakes))
    kafka = raw.get("kafka")
    if isinstance(kafka, dict) and kafka.get("bootstrap"):
        raw.setdefault("transport", "kafka")
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        msg = f"settings: {_readable(str(error))}"
        raise ConfigurationError(msg) from error
    if not 0.0 <= settings.sample_rate <= 1.0:
        msg = f"settings: sample_rate is a share in [0, 1], got {settings.sample_rate}"
        raise ConfigurationError(msg)
    return msgspec.structs.replace(settings, sink=sinks.sinks)


def _read_file(path: str | Path | None) -> dict[str, Any]:
    file = Path(path or DEFAULT_FILE)
    if path is None and not file.exists():
        return {}
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the settings file {file}: {error.strerror}. Name a TOML file that exists"
        raise ConfigurationError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{file} is not TOML: {error}"
        raise ConfigurationError(msg) from error
    problems = _unknown_keys(raw, Settings, "")
    if problems:
        raise ConfigurationError(f"{file}: " + "; ".join(problems))
    for section, kind in _sections().items():
        for field, type_ in get_type_hints(kind).items():
            if type_ == tuple[str, ...] and isinstance(raw.get(section, {}).get(field), str):
                raw[section][field] = _parts(raw[section][field])
    return raw


def _sections() -> dict[str, type[msgspec.Struct]]:
    hints = get_type_hints(Settings)
    return {key: kind for key, kind in hints.items() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}


def _unknown_keys(raw: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str) -> list[str]:
    problems: list[str] = []
    known = kind.__struct_fields__
    sections = _sections()
    for key, value in raw.items():
        if key == "store" and not prefix:
            problems.append(
                'unknown key store: the store is a sink, write [[sink]] with type = "sqlite" and its options'
            )
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            problems.append(f"unknown key {prefix}{key}: {hint}")
        elif not prefix and key in sections:
            if isinstance(value, dict):
                problems += _unknown_keys(value, sections[key], f"{key}.")
            else:
                problems.append(f"{key} is a section: expected [{key}] with its settings below, got {key} = {value!r}")
    return problems


def _apply_env(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    """Put `PRELA_*` variables into `raw`, each converted to the type of its field."""
    sections = _sections()
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name in _NOT_SETTINGS:
            continue
        key = name.removeprefix(ENV_PREFIX).lower()
        if key == "sink":
            raw[key] = _sink_tables(env[name], name)
            continue
        section, _, field = key.partition("_")
        if key in Settings.__struct_fields__ and key not in sections:
            raw[key] = _convert(env[name], get_type_hints(Settings)[key], name)
        elif section in sections and field in sections[section].__struct_fields__:
            target = raw.setdefault(section, {})
            target[field] = _convert(env[name], get_type_hints(sections[section])[field], name)
        else:
            known = [f"{ENV_PREFIX}{known.upper()}" for known in _env_names()]
            near = difflib.get_close_matches(name, known, n=1)
            logger.warning(
                "prela_stream: the variable %s is not known%s", name, f"; did you mean {near[0]}?" if near else ""
            )


def _env_names() -> list[str]:
    sections = _sections()
    top = [key for key in Settings.__struct_fields__ if key not in sections]
    return top + [f"{section}_{field}" for section, kind in sections.items() for field in kind.__struct_fields__]


def _sink_tables(text: str, name: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        msg = (
            f'{name}: expected a JSON array of tables, as in [{{"type": "sqlite", "path": "traces.db"}}], got {text!r}'
        )
        raise ConfigurationError(msg) from None


def _convert(text: str, kind: Any, name: str) -> Any:
    if kind is bool:
        truth = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.lower() in truth:
            return truth[text.lower()]
        msg = f"{name} is on or off: expected true or false, got {text!r}"
        raise ConfigurationError(msg)
    if kind == tuple[str, ...]:
        return _parts(text)
    if kind == dict[str, Any]:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            msg = f'{name}: expected a JSON object, as {{"name": 1}}, got something else'
            raise ConfigurationError(msg) from None  # it may hold a secret
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        message = _readable(str(error)).partition(", got ")[0]  # of the text, not of its type
        msg = f"{name}: {message}, got {text!r}"
        raise ConfigurationError(msg) from error


def _parts(text: str) -> list[str]:
    """The parts of a list that is written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _choices(place: str) -> str:
    section, _, field = place.rpartition(".")
    return " or ".join(map(repr, get_args(get_type_hints(_sections().get(section, Settings))[field])))


def _readable(text: str) -> str:
    """The message of msgspec with the path in front: `Expected int … - at `$.worker.x`` → `worker.x: expected int …`."""
    message, _, place = text.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    message = message[:1].lower() + message[1:]
    if message.startswith("invalid enum value ") and place:
        message = f"expected {_choices(place)}, got {message.removeprefix('invalid enum value ')}"
    return f"{place}: {message}" if place else message
