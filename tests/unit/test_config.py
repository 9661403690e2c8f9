"""Settings from files, variables and arguments; what is wrong with them is said with its place."""

import logging
from pathlib import Path

import pytest

from prela_stream.config import load_settings
from prela_stream.demo.show import environment_of
from prela_stream.errors import ConfigurationError


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
    ("text", "said"),
    [
        ("settle = 1", "unknown key settle: expected one of service_name"),
        ("[assembly]\nsetle_ms = 1", "unknown key assembly.setle_ms: did you mean settle_ms?"),
        ("[assembly]\nsettle_ms = 'x'", "settings: assembly.settle_ms: expected `int`, got `str`"),
        ("sample_rate = 2.0", "settings: sample_rate is a share in [0, 1], got 2.0"),
        ("transport = 'pigeon'", "settings: transport: expected 'local' or 'kafka', got 'pigeon'"),
        ("[local]\nsynchronous = 'off'", "settings: local.synchronous: expected 'full' or 'normal', got 'off'"),
        ("[assembly", "is not TOML: "),
        ("local = 5", "prela.toml: local is a section: expected [local] with its settings below, got local = 5"),
        ("worker = 'x'", "worker is a section: expected [worker] with its settings below, got worker = 'x'"),
        ("directory = 5", "settings: directory: expected `str`, got `int`"),
        ("[worker]\ntick_min_ms = 0", "settings: worker.tick_min_ms: expected `int` >= 1"),
        ("[worker]\npoison_limit = 50", "settings: worker.poison_limit: expected `float` <= 1.0"),
        ("[local]\nsession_timeout_ms = 0", "settings: local.session_timeout_ms: expected `int` >= 100"),
        ("[topics]\npartitions = 0", "settings: topics.partitions: expected `int` >= 1"),
        (
            "[topics]\nprefix = 'my topics'",
            "settings: topics: prefix begins the names of the topics: expected 1 to 200",
        ),
        ("[topics]\nprefix = ''", "'.', '_' and '-', got ''"),
        (f"[topics]\nprefix = '{'x' * 201}'", "expected 1 to 200 letters"),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(tmp_path, text), {})
    assert said in str(caught.value)


def test_an_empty_variable_names_no_file() -> None:
    assert load_settings(env={"PRELA_CONFIG": ""}) == load_settings(env={})


def test_a_range_holds_for_variables_too() -> None:
    with pytest.raises(ConfigurationError, match=r"settings: topics\.partitions: expected `int` >= 1"):
        load_settings(env={"PRELA_TOPICS_PARTITIONS": "0"})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"cannot read the settings file nowhere\.toml: No such file or directory"
    ):
        load_settings("nowhere.toml", {})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PRELA_ASSEMBLY_SETTLE_MS", "soon", "PRELA_ASSEMBLY_SETTLE_MS: expected `int`, got 'soon'"),
        ("PRELA_CAPTURE_CONTENT", "maybe", "PRELA_CAPTURE_CONTENT is on or off: expected true or false, got 'maybe'"),
    ],
)
def test_a_wrong_variable_says_its_name(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={name: value})
    assert str(caught.value) == said


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="prela_stream"):
        load_settings(env={"PRELA_ASEMBLY_SETTLE_MS": "1"})
    assert caplog.messages == [
        "prela_stream: the variable PRELA_ASEMBLY_SETTLE_MS is not known; did you mean PRELA_ASSEMBLY_SETTLE_MS?"
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
    assert str(caught.value) == 'PRELA_KAFKA_EXTRA: expected a JSON object, as {"name": 1}, got something else'
    assert caplog.text == ""


def test_settings_travel_to_another_process_through_its_environment() -> None:
    told = {"PRELA_KAFKA_BOOTSTRAP": "one:9092,two:9092", "PRELA_KAFKA_EXTRA": '{"a": [1]}', "PRELA_SAMPLE_RATE": "0.5"}
    settings = load_settings(env=told)
    assert load_settings(env=environment_of(settings)) == settings
