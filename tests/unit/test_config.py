"""Settings from files, variables and arguments; each mistake has its source, its path and no credential."""

import logging
from pathlib import Path

import msgspec
import pytest

from prela_stream.config import SECTIONS, Settings, checked_settings, load_settings, variables
from prela_stream.demo.show import environment_of
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.registry import SINK_TYPES, options_type
from prela_stream.transport.options import KafkaOptions
from prela_stream.validation import describe, fields_of, unit_of
from prela_stream.worker.options import WorkerOptions


def write(path: Path, text: str) -> Path:
    file = path / "prela.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_put_both_files_into_one_directory() -> None:
    settings = load_settings(env={})
    (sink,) = settings.sink
    assert (settings.local.path, sink.options.path) == (str(Path(".prela/log.db")), str(Path(".prela/traces.db")))


def test_file_environment_and_overrides_in_that_order(tmp_path: Path) -> None:
    file = write(
        tmp_path, 'service_name = "file"\n[assembly]\nsettle_ms = 1\nroot_wait_ms = 2\n[topics]\npartitions = 7\n'
    )
    env = {"PRELA_ASSEMBLY_SETTLE_MS": "5", "PRELA_SERVICE_NAME": "env", "PRELA_SAMPLE_RATE": "0.5"}
    settings = load_settings(file, env, overrides={"service_name": "argument"})
    assert settings.service_name == "argument"
    assert (settings.assembly.settle_ms, settings.assembly.root_wait_ms) == (5, 2)
    assert (settings.topics.partitions, settings.sample_rate) == (7, 0.5)


def test_directory_moves_log_and_store(tmp_path: Path) -> None:
    settings = load_settings(env={"PRELA_DIRECTORY": str(tmp_path)})
    assert settings.local.path == str(tmp_path / "log.db")
    assert [sink.options.path for sink in settings.sink] == [str(tmp_path / "traces.db")]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("settle = 1", "settle: unknown key; expected service_name, directory, transport,"),
        ("[assembly]\nsetle_ms = 1", "assembly.setle_ms: unknown key; did you mean settle_ms?"),
        (
            "[assembly]\nsettle_ms = 'x'",
            'assembly.settle_ms: expected a whole number of ms from 0 to 3,600,000, got "x"',
        ),
        (
            "[assembly]\nidle_ms = inf",
            "assembly.idle_ms: expected a whole number of ms from 1 to 604,800,000, got Infinity",
        ),
        (
            "[assembly]\nmax_spans = 0",
            "assembly.max_spans: expected a whole number of spans from 1 to 100,000,000, got 0",
        ),
        ("sample_rate = 2.0", "sample_rate: expected a number from 0 to 1, got 2.0"),
        ("sample_rate = nan", "sample_rate: expected a number from 0 to 1, got NaN"),
        ("transport = 'pigeon'", 'transport: expected kafka or local, got "pigeon"'),
        ("[local]\nsynchronous = 'off'", 'local.synchronous: expected full or normal, got "off"'),
        ("local = 5", "local: expected a section, [local] with its settings below, got 5"),
        ("worker = 'x'", "worker: expected a section, [worker] with its settings below, got a value"),
        ("directory = 5", "directory: expected a string, got 5"),
        ("directory = 'a\\u0000b'".replace("'", '"'), "directory: expected text without NUL characters"),
        ("[worker]\ntick_min_ms = 0", "worker.tick_min_ms: expected a whole number of ms from 1 to 3,600,000, got 0"),
        ("[worker]\npoison_limit = 50", "worker.poison_limit: expected a number from 0 to 1, got 50"),
        (
            "[worker]\ncommit_timeout_s = 1e300",
            "worker.commit_timeout_s: expected a number of s from 0.001 to 3,600, got 1e+300",
        ),
        (
            "[topics]\npartitions = 0",
            "topics.partitions: expected a whole number of partitions from 1 to 10,000, got 0",
        ),
        ("[topics]\nprefix = 'my topics'", "topics.prefix: topic names start with it: expected 1 to 200 letters"),
        ("[topics]\nprefix = ''", "'.', '_' and '-', got \"\""),
        (f"[topics]\nprefix = '{'x' * 201}'", "expected 1 to 200 letters"),
        (
            "[pipeline]\nbackoff_min_ms = 9\nbackoff_max_ms = 8",
            "pipeline.backoff_max_ms: expected at least backoff_min_ms (9), got 8",
        ),
    ],
)
def test_a_mistake_in_a_file_has_its_path_and_what_was_expected(tmp_path: Path, text: str, mistake: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {})
    head, line = str(caught.value).splitlines()
    assert (head, line[:2]) == (f"{file} has 1 mistake:", "  ")
    assert mistake in line


@pytest.mark.parametrize("text", ["[assembly", "a = " + "9" * 5_000, "a = " + "[" * 5_000, "a = 1979-99-99"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"prela\.toml is not valid TOML: ") as caught:
        load_settings(write(tmp_path, text), {})
    assert len(str(caught.value).splitlines()) == 1


def test_all_mistakes_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "sample_rat = 1\n[worker]\ntick_min_ms = 0\n[kafka]\nbootstrap = 'one:0'")
    env = {"PRELA_PIPELINE_SLICE_US": "1e99", "PRELA_CAPTURE_CONTENT": "maybe"}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, env, overrides={"service_name": 5, "servise_name": "x"})
    assert str(caught.value).splitlines() == [
        f"{file} has 3 mistakes:",
        "  sample_rat: unknown key; did you mean sample_rate?",
        "  worker.tick_min_ms: expected a whole number of ms from 1 to 3,600,000, got 0",
        '  kafka.bootstrap: expected host:port in kafka.bootstrap, got "one:0"',
        "the environment has 2 mistakes:",
        '  PRELA_CAPTURE_CONTENT: expected true or false, got "maybe"',
        '  PRELA_PIPELINE_SLICE_US: expected a whole number of µs from 1 to 1,000,000, got "1e99"',
        "the list of arguments has 2 mistakes:",
        "  servise_name: unknown key; did you mean service_name?",
        "  service_name: expected a string, got 5",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[kafka]\nbootstrap = 'SASL_SSL://me:s3cret@one:9092'",
        "[kafka]\nbootstrap = ['me:s3cret@one:9092']",
        "[kafka]\nbootstrap = ['me:s3cret with/blanks@one:9092']",
        "[kafka]\nbootstrap = [{password = 's3cret'}]",
        "[kafka]\nextra = 's3cret'",
        "[kafka]\nextra = ['s3cret']",
        "[kafka]\nsasl_pasword = 's3cret'",
        "[kafka]\nsasl_password = ['s3cret']",
        "[kafka]\nssl_password = {key = 's3cret'}",
        "[kafka]\nssl_cafile = {sasl_password = 's3cret'}",
        "kafka = 's3cret'",
        "kafka = [{sasl_password = 's3cret'}]",
        "kafka = ['s3cret']",
        "[kafka.sasl]\npassword = 's3cret'",
        "[worker.kafka]\nsasl_password = 's3cret'",
        "service_name = {sasl_password = 's3cret'}",
        "transport = 'kafka://me:s3cret@one:9092'",
        "transport = 'sasl_password=s3cret'",
        "directory = 'postgres://me:s3cret@one/db'",
        "policies_file = 'https://one/policies.toml?token=s3cret'",
        "[local]\npath = 'http://me:s3cret@one/log.db'",
        "[kafka]\nssl_keyfile = 'https://me:s3cret@one/key.pem'",
        "[[sink]]\npath = 'sqlite://me:s3cret@one/traces.db'",
        "[[sink]]\ntype = 'parquet'\npath = 's3://me:s3cret@one'",
        "[[sink]]\ntype = 'clickhouse'\nurl = 'http://me:s3cret@one:99999'",
        "[[sink]]\ntype = 'clickhouse'\nurl = 'http://one:8123?password=s3cret'",
        "[[sink]]\ntype = 'clickhouse'\nurl = 'tcp://me:s3cret@one:9000'",
        "[[sink]]\ntype = 'otlp'\nendpoint = 'http://me:s3cret@one:4318:1'",
    ],
)
def test_no_credential_appears_in_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(tmp_path, text), {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://one:99999", "http://one:0", "http://[::1", "http://one:80:80", "http://", "one:8123", "chdb:///"]
)
@pytest.mark.parametrize(("kind", "key"), [("clickhouse", "url"), ("otlp", "endpoint")])
def test_an_address_of_a_server_is_checked_when_it_is_read(tmp_path: Path, kind: str, key: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(tmp_path, f"[[sink]]\ntype = '{kind}'\n{key} = '{url}'"), {})
    assert f"sink[0].{key}: expected" in str(caught.value)


def test_invisible_characters_of_names_and_values_are_escaped(tmp_path: Path) -> None:
    file = write(tmp_path, '"a\u202eb" = 1\ntransport = "lo\u200bcal"')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {"PRELA_TRANSPORT": "\x1b[31m\udcff"})
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()[1:3]] == ["  a\\u202eb", "  transport"]
    assert 'got "lo\\u200bcal"' in str(caught.value)
    assert 'got "\\u001b[31m\\udcff"' in str(caught.value)


def test_settings_made_in_code_are_checked_too() -> None:
    good = load_settings(env={})
    assert checked_settings(good) is good
    bad = msgspec.structs.replace(good, worker=WorkerOptions(tick_min_ms=0), kafka=KafkaOptions(bootstrap=()))
    with pytest.raises(ConfigurationError) as caught:
        checked_settings(bad)
    assert str(caught.value).splitlines() == [
        "settings=… has 2 mistakes:",
        "  worker.tick_min_ms: expected a whole number of ms from 1 to 3,600,000, got 0",
        "  kafka.bootstrap: expected host:port of at least one broker, got none",
    ]


ALL_OPTIONS = [Settings, *SECTIONS.values(), *(options_type(kind) for kind in SINK_TYPES)]


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    elsewhere = "/elsewhere/x.db"
    file = write(
        folder,
        f'directory = "data"\npolicies_file = "policies.toml"\n[kafka]\nssl_cafile = "ca.pem"\n[[sink]]\npath = "s.db"\n'
        f'[[sink]]\nname = "other"\npath = "{elsewhere}"\n[[sink]]\nname = "third"\n',
    )
    monkeypatch.chdir(tmp_path)
    for named in (file, Path("conf") / file.name):
        settings = load_settings(named, {})
        base = named.parent
        assert settings.directory == str(base / "data")
        assert settings.local.path == str(base / "data" / "log.db")
        assert settings.policies_file == str(base / "policies.toml")
        assert settings.kafka.ssl_cafile == str(base / "ca.pem")
        assert [sink.options.path for sink in settings.sink] == [
            str(base / "s.db"),
            elsewhere,
            str(base / "data" / "traces.db"),
        ]
    given = load_settings(file, {"PRELA_POLICIES_FILE": "here.toml"}, overrides={"directory": "there"})
    assert (given.policies_file, given.directory) == ("here.toml", "there")


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_range_and_a_unit(options: type[msgspec.Struct]) -> None:
    numbers = [field for field in fields_of(options).values() if "number" in describe(field)]
    assert [field.name for field in numbers if not unit_of(field)] == []
    assert [field.name for field in numbers if " from " not in describe(field)] == []


def test_an_empty_variable_is_not_set() -> None:
    names = ["PRELA_CONFIG", "PRELA_SINK", *variables()]
    assert load_settings(env=dict.fromkeys(names, "")) == load_settings(env={})


def test_a_range_holds_for_variables_too() -> None:
    with pytest.raises(
        ConfigurationError, match=r"PRELA_TOPICS_PARTITIONS: expected a whole number of partitions from 1"
    ):
        load_settings(env={"PRELA_TOPICS_PARTITIONS": "0"})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"cannot read the settings file /.*nowhere\.toml: No such file or directory"
    ):
        load_settings("nowhere.toml", {})


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="prela_stream"):
        load_settings(env={"PRELA_ASEMBLY_SETTLE_MS": "1"})
    assert caplog.messages == [
        (
            "prela_stream: the variable PRELA_ASEMBLY_SETTLE_MS names no setting and has no effect; "
            "did you mean PRELA_ASSEMBLY_SETTLE_MS?"
        )
    ]


def test_naming_brokers_means_kafka_unless_a_transport_is_named(tmp_path: Path) -> None:
    assert load_settings(env={}).transport == "local"
    named = load_settings(env={"PRELA_KAFKA_BOOTSTRAP": "one:9092, two:9092"})
    assert (named.transport, named.kafka.bootstrap) == ("kafka", ("one:9092", "two:9092"))
    both = load_settings(env={"PRELA_KAFKA_BOOTSTRAP": "one:9092", "PRELA_TRANSPORT": "local"})
    assert both.transport == "local"
    file = write(tmp_path, '[kafka]\nbootstrap = "one:9092,two:9092"\n')
    assert load_settings(file, {}).transport == "kafka"
    assert load_settings(file, {}).kafka.bootstrap == named.kafka.bootstrap
    assert load_settings(file, {}, overrides={"transport": "local"}).transport == "local"
    assert load_settings(env={"PRELA_TRANSPORT": "kafka"}).kafka.bootstrap == ("localhost:9092",)


def test_options_of_the_client_come_as_json_and_never_show(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(
        env={"PRELA_KAFKA_EXTRA": '{"metadata_max_age_ms": 5}', "PRELA_KAFKA_SASL_PASSWORD": "s3cret"}
    )
    assert settings.kafka.extra == {"metadata_max_age_ms": 5}
    assert "s3cret" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={"PRELA_KAFKA_EXTRA": "s3cret"})
    assert "PRELA_KAFKA_EXTRA: expected a table (in a variable: a JSON object)" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caplog.text == ""


def test_settings_travel_to_another_process_through_its_environment() -> None:
    given = {
        "PRELA_KAFKA_BOOTSTRAP": "one:9092,two:9092",
        "PRELA_KAFKA_EXTRA": '{"a": [1]}',
        "PRELA_SAMPLE_RATE": "0.5",
    }
    settings = load_settings(env=given)
    assert load_settings(env=environment_of(settings)) == settings
