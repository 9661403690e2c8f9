"""Settings: the options of all components, read from a TOML file, from `PRELA_*` variables and from arguments.

A setting is `[assembly] settle_ms = 500` in the file and `PRELA_ASSEMBLY_SETTLE_MS=500` in the environment. Arguments win over
variables, variables over the file. An unknown key of the file is an error; an unknown variable is a warning, because other
programs may use the prefix. If `kafka.bootstrap` is set and `transport` is not, the transport is Kafka.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.delivery.options import PipelineOptions
from prela_stream.errors import ConfigurationError, logger
from prela_stream.otlp.options import OtlpOptions
from prela_stream.privacy.options import PrivacyOptions
from prela_stream.sinks.settings import SinkSettings, default_sinks, read_sinks
from prela_stream.text import show, visible
from prela_stream.transport.options import KafkaOptions, LocalOptions, TopicOptions
from prela_stream.validation import (
    Mistakes,
    absolute,
    bounded,
    fields_of,
    join,
    nearest,
    parse_toml,
    parts,
    path_problem,
    raise_if_any,
    read_text,
)
from prela_stream.web.options import WebOptions
from prela_stream.worker.options import WorkerOptions

ENV_PREFIX = "PRELA_"
DEFAULT_DIRECTORY = ".prela"
DEFAULT_FILE = "prela.toml"
_PATHS = frozenset(
    {
        *("directory", "policies_file", "local.path", "otlp.token_file"),
        *("kafka.sasl_password_file", "kafka.ssl_cafile", "kafka.ssl_certfile", "kafka.ssl_keyfile"),
    }
)
"""Settings that are paths. In a settings file they are relative to its folder, elsewhere to the working directory."""
OTHER_VARIABLES = {
    "PRELA_CONFIG": "The settings file. An argument or `--config` wins over it.",
    "PRELA_STRICT": "`1` raises errors inside the SDK into the application instead of counting them. For tests.",
    "PRELA_DEBUG": "`1` shows the log of this package on standard error, in detail.",
    "PRELA_AUTO_INSTRUMENT": "`0` turns off the tracing of libraries, whatever `init()` is given.",
    "PRELA_PROJECT_ID": "Becomes the resource attribute `prela.project.id`, as `init(project_id=…)`.",
}
"""Variables that are read elsewhere than here, with what they do."""
_WITHOUT_WARNING = frozenset(
    {
        *OTHER_VARIABLES,
        "PRELA_TEST_BOOTSTRAP",
        # of the ancestor SDK: `init()` reports that they have no effect
        *("PRELA_EXPORTER", "PRELA_TRACE_DIR", "PRELA_HTTP_ENDPOINT", "PRELA_API_KEY", "PRELA_CAPTURE_REPLAY"),
        "PRELA_N8N_WEBHOOK_PORT",
    }
)


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The endpoint of `worker`, `sink` and `dev` for metrics and health. It needs the extra `metrics`."""

    listen: str = ""
    """HOST:PORT to serve /metrics, /healthz and /readyz on, for example 127.0.0.1:9464; empty: no socket is opened."""
    token: str = ""
    """Bearer token that /metrics requires. Required if `listen` is no loopback address."""
    hosts: tuple[str, ...] = ()
    """Further names that the Host header may have. Addresses, `localhost` and the host of `listen` are accepted."""
    ready_lag_s: Annotated[float, bounded(0.1, 86_400)] = 60.0
    """A worker that is further behind the end of a partition is not ready, seconds."""

    def __repr__(self) -> str:
        return f"HttpOptions(listen={self.listen!r}, token={'<hidden>' if self.token else repr('')})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Each section belongs to the component that reads it."""

    service_name: str = ""
    """Name of this program in its spans; empty: its file name."""
    directory: str = DEFAULT_DIRECTORY
    """Folder of the local transport and of the store."""
    transport: Literal["local", "kafka"] = "local"
    """What carries the records; "kafka" if `kafka.bootstrap` is set and this is not."""
    policies_file: str | None = None
    """TOML file of the sampling policies; None: the default policies."""
    sample_rate: Annotated[float, bounded(0, 1)] = 1.0
    """Head sampling: the share of traces that is recorded."""
    capture_content: bool = True
    """Whether prompts, answers and tool arguments are recorded."""
    topics: TopicOptions = TopicOptions()
    local: LocalOptions = LocalOptions()
    kafka: KafkaOptions = KafkaOptions()
    pipeline: PipelineOptions = PipelineOptions()
    privacy: PrivacyOptions = PrivacyOptions()
    assembly: AssemblyOptions = AssemblyOptions()
    worker: WorkerOptions = WorkerOptions()
    http: HttpOptions = HttpOptions()
    otlp: OtlpOptions = OtlpOptions()
    web: WebOptions = WebOptions()
    sink: tuple[SinkSettings, ...] = default_sinks(DEFAULT_DIRECTORY)
    """The `[[sink]]` tables, or the JSON array of tables in `PRELA_SINK`. `traces …` reads the first one that is a store."""


SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    name: field.type
    for name, field in fields_of(Settings).items()
    if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
}
"""The options of each section by its name."""
_TOP = {name: field for name, field in fields_of(Settings).items() if name not in SECTIONS and name != "sink"}
_SINK_VARIABLE = f"{ENV_PREFIX}SINK"


def load_settings(
    path: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings.

    Args:
        path: A TOML file; None: the one that `PRELA_CONFIG` names, else `prela.toml` in the working directory if it exists.
        env: The environment; None: that of this process.
        overrides: Settings that win over file and environment, in the form of the tables of a settings file.

    Raises:
        ConfigurationError: With every mistake: its source, its path, what was expected and what was found.
    """
    for argument, value, kind, expected in (
        ("path", path, str | os.PathLike, "a path"),
        ("env", env, Mapping, "a mapping of variables"),
        ("overrides", overrides, Mapping, "a mapping of settings"),
    ):
        if value is not None and not isinstance(value, kind):
            msg = f"load_settings({argument}=…) expects {expected}, got an object of type {type(value).__name__}"
            raise ConfigurationError(msg)
    env = os.environ if env is None else env
    named = (None if path is None else os.fspath(path)) or env.get("PRELA_CONFIG") or None
    file = Path(named or DEFAULT_FILE)
    reader = _SettingsReader(absolute(file))
    if named is not None or _exists(file):
        text = read_text(file, "settings file", "Name a TOML file that exists and can be read")
        reader.read_file(parse_toml(text, reader.file.source), folder=file.parent)
    reader.read_variables(env)
    reader.read_arguments(overrides or {})
    return reader.settings()


def is_off(variable: str) -> bool:
    """Whether a variable is set to false, 0, no or off."""
    return os.environ.get(variable, "").lower() in ("false", "0", "no", "off")


def _exists(file: Path) -> bool:
    """Whether the default file exists. One that cannot be examined exists: reading it reports why."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def checked_settings(settings: Settings) -> Settings:
    """Settings that were made in code, if every value is in its range; raises ConfigurationError with all that are not."""
    reader = _SettingsReader("settings=…")
    table = {name: getattr(settings, name) for name in _TOP}
    for section, kind in SECTIONS.items():
        table[section] = {name: getattr(getattr(settings, section), name) for name in fields_of(kind)}
    table["sink"] = [sink.table() for sink in settings.sink]
    reader.read_file(table)
    reader.settings()
    return settings


class _SettingsReader:
    """The value of each setting by its path, with the source that it came from, and the mistakes of each source."""

    def __init__(self, file: str) -> None:
        self.file = Mistakes(file)
        self._variables = Mistakes("the environment")
        self._arguments = Mistakes("the list of arguments")
        self._values: dict[str, dict[str, Any]] = {"": {}, **{section: {} for section in SECTIONS}}
        self._sink: Any = [{}]
        """The `[[sink]]` tables, not read yet: their paths are in the directory, which may come from another source."""
        self._sources: dict[str, tuple[Mistakes, str]] = {}
        """By the path of a setting: where its value came from, and its name there."""

    def read_file(self, table: Mapping[str, Any], *, folder: Path | None = None) -> None:
        """Take the tables of a settings file. Its relative paths are relative to `folder`, in which it is."""
        if folder is not None:
            table = _with_paths_in(table, folder)
        if "store" in table:
            self.file.report(
                "store", 'unknown key; the store is a sink, write [[sink]] with type = "sqlite" and its options'
            )
        self.file.unknown_keys(table, fields_of(Settings), "", but=("store",))
        self._read_table(self.file, table)

    def _read_table(self, source: Mistakes, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            if name == "sink":
                self._sink, self._sources["sink"] = value, (source, "")
            elif name in _TOP:
                self._take(source, "", name, value)
            elif name in SECTIONS and not isinstance(value, Mapping):
                source.report(name, f"expected a section, [{name}] with its settings below, got {_kind(value)}")
            elif name in SECTIONS:
                source.unknown_keys(value, fields_of(SECTIONS[name]), name)
                for key, inner in value.items():
                    if key in fields_of(SECTIONS[name]):
                        self._take(source, name, key, inner)

    def _take(self, source: Mistakes, section: str, name: str, value: Any) -> None:
        field = fields_of(SECTIONS[section])[name] if section else _TOP[name]
        path = join(section, name)
        if isinstance(value, str) and field.type == tuple[str, ...]:
            value = parts(value)
        before = len(source.found)
        converted = source.value(field, value, path)
        if len(source.found) == before:
            self._keep(section, name, converted, (source, path))

    def read_variables(self, env: Mapping[str, str]) -> None:
        """Take the `PRELA_*` variables that are not empty; warn of those that name no setting."""
        known = variables()
        for name in sorted(env):
            if not name.startswith(ENV_PREFIX) or name in _WITHOUT_WARNING or not env[name]:
                continue
            if name == _SINK_VARIABLE:
                self._read_sink_variable(env[name])
                continue
            if name not in known:
                shown, hint = visible(name, lines=False), nearest(name, known)
                logger.warning("prela_stream: the variable %s names no setting and has no effect%s", shown, hint)
                continue
            section, key = known[name]
            field = fields_of(SECTIONS[section])[key] if section else _TOP[key]
            before = len(self._variables.found)
            converted = self._variables.text(field, env[name], name)
            if len(self._variables.found) == before:
                self._keep(section, key, converted, (self._variables, name))

    def _read_sink_variable(self, text: str) -> None:
        try:
            self._sink = msgspec.json.decode(text.encode(errors="surrogateescape"))
            self._sources["sink"] = (self._variables, f"{_SINK_VARIABLE}: ")
        except (msgspec.DecodeError, RecursionError):
            expected = 'expected a JSON array of tables, as in [{"type": "sqlite", "path": "traces.db"}]'
            self._variables.report(_SINK_VARIABLE, f"{expected}, got something else, which is not shown")

    def read_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Take the arguments of a call or of the command line, in the form of the tables of a settings file."""
        self._arguments.unknown_keys(arguments, fields_of(Settings), "")
        self._read_table(self._arguments, arguments)

    def _keep(self, section: str, name: str, value: Any, source: tuple[Mistakes, str]) -> None:
        if join(section, name) in _PATHS and (problem := path_problem(value)):
            source[0].report(source[1], problem)
        self._values[section][name] = value
        self._sources[join(section, name)] = source

    def settings(self) -> Settings:
        """The settings; raises ConfigurationError with every mistake of every source."""
        top = self._values[""]
        directory = Path(top.get("directory", DEFAULT_DIRECTORY))
        self._values["local"].setdefault("path", str(directory / "log.db"))
        if self._values["kafka"].get("bootstrap"):
            top.setdefault("transport", "kafka")
        made: dict[str, Any] = {section: kind(**self._values[section]) for section, kind in SECTIONS.items()}
        for section, options in made.items():
            for name, problem in getattr(options, "problems", tuple)():
                source, name_there = self._sources.get(join(section, name), (self.file, join(section, name)))
                source.report(name_there, problem)
        sinks = read_sinks(self._sink, str(directory))
        source, prefix = self._sources.get("sink", (self.file, ""))
        for path, problem in sinks.mistakes:
            source.report(f"{prefix}{path}", problem)
        raise_if_any(self.file, self._variables, self._arguments)
        return Settings(**top, **made, sink=sinks.sinks)


def _with_paths_in(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tables of a file with its relative paths below its folder, which need not be the working directory."""

    def placed(name: str, value: Any) -> Any:
        return _below(folder, value) if name in _PATHS else value

    found: dict[str, Any] = {}
    for name, value in table.items():
        if name == "sink" and isinstance(value, list):
            found[name] = [_with_sink_path(one, folder) if isinstance(one, Mapping) else one for one in value]
        elif name in SECTIONS and isinstance(value, Mapping):
            found[name] = {key: placed(f"{name}.{key}", inner) for key, inner in value.items()}
        else:
            found[name] = placed(name, value)
    return found


def _with_sink_path(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {**table, "path": _below(folder, table["path"])} if "path" in table else {**table}


def _below(folder: Path, path: Any) -> Any:
    """A path below a folder. What is no path is left as it is, because it is reported later."""
    return str(folder / path) if isinstance(path, str) and path and not path_problem(path) else path


def variables() -> dict[str, tuple[str, str]]:
    """Section (empty at the top) and name of every setting by its variable."""
    names = [("", name) for name in _TOP]
    names += [(section, name) for section, kind in SECTIONS.items() for name in fields_of(kind)]
    return {f"{ENV_PREFIX}{join(*path).replace('.', '_').upper()}": path for path in names}


def _kind(value: Any) -> str:
    """The kind of a value that was found instead of a section. Its text may hold a credential, so it is not shown."""
    return (
        show(value) if isinstance(value, bool | int | float) else f"a {'list' if isinstance(value, list) else 'value'}"
    )
