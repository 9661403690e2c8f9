"""Policy files: what they mean, what does not change their version, and the whole text of each kind of mistake."""

from textwrap import dedent

import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import Trigger
from prela_stream.model.span import SpanStatus
from prela_stream.sampling.algebra import And, Not
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.latency import Latency
from prela_stream.sampling.policyfile import Mode
from prela_stream.sampling.policyset import DEFAULT_TEXT, default_policies, load_policies, policy_set
from prela_stream.sampling.registry import POLICIES
from prela_stream.sampling.share import Always
from prela_stream.sampling.status import Status
from prela_stream.validation import one_of
from tests.unit.sampling.traces import PlannedSpan, make_trace, trace_id_of

ALWAYS = '[[policy]]\ntype = "always"\n'


def load(text: str) -> object:
    return load_policies(dedent(text), source="p.toml")


def mistakes(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    return str(caught.value)


def test_a_file_is_read_as_written() -> None:
    found = load_policies(
        dedent("""
        mode = "first_match"
        default = 0
        [[policy]]
        type = "status"
        [[policy]]
        name = "gold and slow"
        type = "and"
        probability = 0.5
        policies = [
          {type = "attribute", key = "tier", one_of = ["gold"], on = "resource"},
          {type = "not", policies = [{type = "latency", min_ms = 0, max_ms = 30_000}]},
        ]
        """),
        source="p.toml",
    )
    assert (found.mode, found.default, found.source) == (Mode.FIRST_MATCH, 0.0, "p.toml")
    assert found.policies == (
        Status(name="status"),
        And(
            name="gold and slow",
            probability=0.5,
            policies=(
                Attribute(key="tier", one_of=("gold",), on="resource"),
                Not(policies=(Latency(min_ms=0.0, max_ms=30_000.0),)),
            ),
        ),
    )


def test_the_version_is_that_of_the_meaning() -> None:
    plain = load_policies(ALWAYS, source="a.toml").version
    same = '# why\nmode="any"\n[[policy]]\nprobability = 1   # all\n  type="always"\nname = "always"'
    assert load_policies(same, source="b.toml").version == plain
    assert policy_set([Always(name="always")], source="code").version == plain
    others = [
        ALWAYS + 'name = "x"',
        ALWAYS + "probability = 0.5",
        'mode = "first_match"\n' + ALWAYS,
        'mode = "first_match"\ndefault = 0.5\n' + ALWAYS,
        '[[policy]]\ntype = "status"\n' + ALWAYS,
        ALWAYS + '[[policy]]\ntype = "status"\n',
        '[[policy]]\ntype = "or"\npolicies = [{type = "always"}]',
        '[[policy]]\ntype = "or"\npolicies = [{type = "always", probability = 0.5}]',
    ]
    versions = {load_policies(text, source="a.toml").version for text in others}
    assert len(versions | {plain}) == len(others) + 1
    assert all(len(version) == 16 for version in versions)


def test_without_a_file_errors_and_slow_traces_are_kept_and_a_tenth_of_the_rest() -> None:
    found = default_policies()
    assert found == load_policies(DEFAULT_TEXT, source="the built-in policies")
    evaluator = Evaluator(found)

    def probability(*spans: PlannedSpan, trigger: Trigger = Trigger.COMPLETE) -> float:
        return evaluator.decide(make_trace(*spans, trigger=trigger, trace_id=trace_id_of(0))).probability

    assert probability(PlannedSpan(), PlannedSpan(status=SpanStatus.ERROR)) == 1.0
    assert probability(PlannedSpan(seconds=30)) == 1.0
    assert probability(PlannedSpan(status=SpanStatus.PENDING), trigger=Trigger.LOST) == 1.0
    assert probability(PlannedSpan(status=SpanStatus.CANCELLED)) == 0.5
    assert probability(PlannedSpan()) == pytest.approx(0.1, rel=1e-3)
    assert evaluator.reads == frozenset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = \n", "Invalid value (at line 1, column 5)"),
        ("[[policy]", "Expected ']]' at the end of an array declaration (at line 1, column 9)"),
        ("a = 1\nb = [\n", "Invalid value (at line 3, column 1, the end of the file)"),
        ("a = 1\na = 2\n", "Cannot overwrite a value (at line 2, column 6)"),
    ],
)
def test_syntax_errors_have_a_line_and_a_column(text: str, expected: str) -> None:
    assert mistakes(text) == f"p.toml is not valid TOML: {expected}"


KINDS = one_of(POLICIES)
ONE_TEST = "expected exactly one test of equals, one_of, regex, min/max, exists"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "no policies; expected at least one table headed [[policy]]"),
        ("policy = []", "no policies; expected at least one table headed [[policy]]"),
        ("policy = 3", "policy: expected tables headed [[policy]], got 3"),
        ('[policy]\ntype = "always"', "policy: expected tables headed [[policy]], got a table"),
        ("polcy = 1\n" + ALWAYS, "polcy: unknown key; did you mean policy?"),
        ("zzz = 1\n" + ALWAYS, "zzz: unknown key; expected mode, default or policy"),
        ('mode = "all"\n' + ALWAYS, 'mode: expected any or first_match, got "all"'),
        ("mode = 3\n" + ALWAYS, "mode: expected any or first_match, got 3"),
        ("mode = []\n" + ALWAYS, "mode: expected any or first_match, got []"),
        (
            'mode = "firstmatch"\n' + ALWAYS,
            'mode: expected any or first_match, got "firstmatch"; did you mean first_match?',
        ),
        (
            "default = 0.5\n" + ALWAYS,
            "default: only mode first_match has a default; in mode any, end with a policy of type probabilistic",
        ),
        ('mode = "first_match"\ndefault = 2\n' + ALWAYS, "default: expected a number from 0 to 1, got 2"),
        ('mode = "first_match"\ndefault = nan\n' + ALWAYS, "default: expected a number from 0 to 1, got NaN"),
        ('mode = "first_match"\ndefault = true\n' + ALWAYS, "default: expected a number from 0 to 1, got true"),
        ("[[policy]]", f"policy[0].type: missing; expected {KINDS}"),
        ('[[policy]]\ntype = "sometimes"', f'policy[0].type: expected {KINDS}, got "sometimes"'),
        ('[[policy]]\ntype = "statsu"', f'policy[0].type: expected {KINDS}, got "statsu"; did you mean status?'),
        ('[[policy]]\ntype = ["and"]', f'policy[0].type: expected {KINDS}, got ["and"]'),
        (ALWAYS + "probabilty = 1", "policy[0].probabilty: unknown key; did you mean probability?"),
        (ALWAYS + "min_ms = 1", "policy[0].min_ms: unknown key; expected type, name or probability"),
        (ALWAYS + "probability = 1.5", "policy[0].probability: expected a number from 0 to 1, got 1.5"),
        (ALWAYS + "probability = -0.1", "policy[0].probability: expected a number from 0 to 1, got -0.1"),
        (ALWAYS + "probability = nan", "policy[0].probability: expected a number from 0 to 1, got NaN"),
        (ALWAYS + "probability = true", "policy[0].probability: expected a number from 0 to 1, got true"),
        (ALWAYS + 'probability = "10 %"', 'policy[0].probability: expected a number from 0 to 1, got "10 %"'),
        (ALWAYS + "name = 3", "policy[0].name: expected a string, got 3"),
        (ALWAYS + 'name = "(none)"', 'policy[0].name: names in brackets are reserved, got "(none)"'),
        ('[[policy]]\ntype = "probabilistic"', "policy[0].probability: missing; expected a number from 0 to 1"),
        (
            '[[policy]]\ntype = "latency"\nmin_ms = "fast"',
            'policy[0].min_ms: expected a number of ms from 0 to 3,153,600,000,000, got "fast"',
        ),
        (
            '[[policy]]\ntype = "latency"\nmin_ms = inf',
            "policy[0].min_ms: expected a number of ms from 0 to 3,153,600,000,000, got Infinity",
        ),
        (
            '[[policy]]\ntype = "latency"\nmin_ms = 5\nmax_ms = 5',
            "policy[0].max_ms: expected more than min_ms (5), got 5",
        ),
        (
            '[[policy]]\ntype = "status"\nstatuses = ["FAILED"]',
            (
                "policy[0].statuses: expected a list of at least one, each PENDING, SUCCESS, ERROR or CANCELLED, "
                'got ["FAILED"]'
            ),
        ),
        (
            '[[policy]]\ntype = "status"\nstatuses = []',
            "policy[0].statuses: expected a list of at least one, each PENDING, SUCCESS, ERROR or CANCELLED, got []",
        ),
        (
            '[[policy]]\ntype = "status"\nspan_type = "model"',
            'policy[0].span_type: expected AGENT, LLM, TOOL, RETRIEVAL, EMBEDDING or CUSTOM, got "model"',
        ),
        (
            '[[policy]]\ntype = "attribute"\nexists = true',
            "policy[0].key: missing; expected a string that is not empty",
        ),
        ('[[policy]]\ntype = "attribute"\nkey = "k"', f"policy[0]: {ONE_TEST}; got none"),
        (
            '[[policy]]\ntype = "attribute"\nkey = "k"\nmin = 1\nequals = 2',
            f"policy[0]: {ONE_TEST}; got equals and min/max",
        ),
        (
            '[[policy]]\ntype = "attribute"\nkey = "k"\nmin = 2\nmax = 1',
            "policy[0].max: expected at least min (2), got 1",
        ),
        (
            '[[policy]]\ntype = "attribute"\nkey = "k"\nregex = "a("',
            "policy[0].regex: expected a regular expression, got 'a(': missing ): a(",
        ),
        (
            '[[policy]]\ntype = "attribute"\nkey = "k"\nexists = true\non = "root"',
            'policy[0].on: expected resource or span, got "root"',
        ),
        (
            '[[policy]]\ntype = "attribute"\nkey = "k"\nequals = 2020-01-01',
            'policy[0].equals: expected a string, true or false or a number, got "2020-01-01"',
        ),
        ('[[policy]]\ntype = "and"', "policy[0].policies: expected a list of at least one policy table, missing"),
        (
            '[[policy]]\ntype = "or"\npolicies = []',
            "policy[0].policies: expected a list of at least one policy table, got []",
        ),
        (
            '[[policy]]\ntype = "and"\npolicies = [{type = "or", policies = [{type = "latency"}]}]',
            "policy[0].policies[0].policies[0].min_ms: missing; expected a number of ms from 0 to 3,153,600,000,000",
        ),
        (
            '[[policy]]\ntype = "or"\nprobability = 0.5\npolicies = [{type = "always"}]',
            "policy[0].probability: unknown key; expected type, name or policies",
        ),
        (
            (
                '[[policy]]\ntype = "not"\npolicies = [{type = "status"}, {type = "and", policies = '
                '[{type = "always"}, {type = "always", probability = 0.3}]}]'
            ),
            (
                "policy[0].policies[1].policies[1].probability: expected 0 or 1 inside not, got 0.3; put the probability on "
                "the not itself"
            ),
        ),
        (
            '[[policy]]\ntype = "or"\npolicies = [{type = "drop", policies = [{type = "always"}]}]',
            "policy[0].policies[0].type: drop is only allowed at the top of a policy file; use not here",
        ),
        (
            '[[policy]]\ntype = "drop"\npolicies = [{type = "always"}]',
            "policy: all policies are of type drop, so no trace would ever be kept; add one that keeps",
        ),
        (
            ALWAYS + ALWAYS,
            (
                'policy[1].name: "always" is already the name of policy[0] (the default name of a policy is its type); '
                "give each policy another name"
            ),
        ),
        (
            'mode = "first_match"\n' + ALWAYS + '[[policy]]\ntype = "status"\n',
            "policy[1]: never reached, because policy[0] matches every trace; move policy[0] to the end",
        ),
        (
            'mode = "first_match"\n[[policy]]\ntype = "or"\npolicies = [{type = "status"}, {type = "always"}]\n'
            + ALWAYS,
            "policy[1]: never reached, because policy[0] matches every trace; move policy[0] to the end",
        ),
    ],
)
def test_each_mistake_has_its_path_and_text(text: str, mistake: str) -> None:
    assert mistakes(text) == f"p.toml has 1 mistake:\n  {mistake}"


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes("""
        mod = "any"
        [[policy]]
        type = "latency"
        min_mss = 3
        probability = 2
        [[policy]]
        type = "not"
        policies = [{type = "latncy"}, {type = "always", probability = 0.5}]
        [[policy]]
        type = "status"
        [[policy]]
        type = "status"
        """)
    assert found.splitlines() == [
        "p.toml has 7 mistakes:",
        "  mod: unknown key; did you mean mode?",
        "  policy[0].min_mss: unknown key; did you mean min_ms?",
        "  policy[0].probability: expected a number from 0 to 1, got 2",
        "  policy[0].min_ms: missing; expected a number of ms from 0 to 3,153,600,000,000",
        f'  policy[1].policies[0].type: expected {KINDS}, got "latncy"; did you mean latency?',
        "  policy[1].policies[1].probability: expected 0 or 1 inside not, got 0.5; put the probability on the not itself",
        (
            '  policy[3].name: "status" is already the name of policy[2] (the default name of a policy is its type); '
            "give each policy another name"
        ),
    ]


def test_a_long_value_is_cut_in_the_text() -> None:
    assert mistakes(ALWAYS + f'probability = "{"x" * 500}"').endswith(f'got "{"x" * 58}…')
