"""Every type's values: what passes, as what, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets import declarations, params
from presets.params import InvalidVariables, Variable, validate
from presets.tests.helpers import make_preset


def variable(kind: str, **over: Any) -> Variable:
    """One variable, through the document reader, so that its defaults are those of real presets."""
    extra = {"choices": ["red", "light blue"]} if kind == "enum" else {}
    return make_preset(variables=[{"name": "V", "type": kind, **extra, **over}]).variables[0]


def refusal(declared: Variable, value: object) -> str:
    with pytest.raises(InvalidVariables) as caught:
        validate((declared,), {"V": value})
    assert list(caught.value.fields) == ["V"]
    (sentence,) = caught.value.fields["V"]
    return sentence


ACCEPTED = [
    ("string", "it's $(id)\n`x` -- ğ🙂", None),
    ("string", "-rf", None),
    ("int", 0, "0"),
    ("int", -7, "-7"),
    ("int", "42", "42"),
    ("int", 10**18 - 1, "999999999999999999"),
    ("bool", True, "true"),
    ("bool", "false", "false"),
    ("enum", "light blue", None),
    ("port", 443, "443"),
    ("port", "65535", None),
    ("hostname", "web-1.example.org", None),
    ("hostname", "localhost", None),
    ("hostname", "xn--strae-oqa.de", None),
    ("hostname", "a" * 63 + ".b", None),
    ("ip", "192.0.2.7", None),
    ("ip", "2001:db8::7", None),
    ("ip", "::ffff:192.0.2.7", None),
    ("cidr", "10.8.0.0/24", None),
    ("cidr", "0.0.0.0/0", None),
    ("cidr", "2001:db8::/32", None),
    ("path", "/", None),
    ("path", "/srv/with blank/ğ", None),
    ("path", "/a/..b/c..", None),
    ("identifier", "_deploy-user1", None),
    ("identifier", "a" * 64, None),
    ("url", "https://example.org:8443/a/b?c=d&e=%20#f", None),
    ("url", "http://[2001:db8::1]/", None),
    ("duration", "90", "90"),
    ("duration", "90s", "90"),
    ("duration", "15m", "900"),
    ("duration", "12h", "43200"),
    ("duration", "30d", "2592000"),
    ("duration", "2w", "1209600"),
    ("duration", 60, "60"),
    ("secret_ref", "env:HYPRBOX_SECRET_DB", None),
    ("secret_ref", "file:/etc/hyprbox/secrets/db/pass.txt", None),
]


@pytest.mark.parametrize(("kind", "value", "text"), ACCEPTED)
def test_a_good_value_passes(kind: str, value: object, text: str | None) -> None:
    assert validate((variable(kind),), {"V": value}) == {"V": value if text is None else text}


REFUSED = [
    ("string", 5, "number"),
    ("string", ["x"], "list"),
    ("string", "a\0b", "NUL"),
    ("string", "\ud800", "surrogate"),
    ("string", "x" * 65_537, "65,536"),
    ("int", "007", '"007"'),
    ("int", "+1", '"+1"'),
    ("int", "1 ", '"1 "'),
    ("int", "1\n", '"1\\n"'),
    ("int", "٣", "whole number"),
    ("int", "1e3", '"1e3"'),
    ("int", 10**18, "that long"),
    ("int", 1.0, "number"),
    ("int", True, "boolean"),
    ("int", "a[$(id)]", "whole number"),
    ("bool", "yes", "true or false"),
    ("bool", "True", "true or false"),
    ("bool", 1, "number"),
    ("enum", "blue", "one of red, light blue"),
    ("enum", "RED", "one of red, light blue"),
    ("port", 0, "1 to 65535"),
    ("port", 65536, "1 to 65535"),
    ("port", "-80", "1 to 65535"),
    ("port", "080", "1 to 65535"),
    ("hostname", "-a.example", "host name"),
    ("hostname", "a..b", "host name"),
    ("hostname", "a_b", "host name"),
    ("hostname", "example.org.", "host name"),
    ("hostname", "10.0.0.1", "not an address"),
    ("hostname", "straße.de", "xn--"),
    ("hostname", "a" * 64, "host name"),
    ("hostname", "example.org\n", "host name"),
    ("hostname", ".".join(["a" * 50] * 6), "host name"),
    ("ip", "192.0.2", "192.0.2.7"),
    ("ip", "192.0.2.07", "192.0.2.7"),
    ("ip", "fe80::1%eth0", "192.0.2.7"),
    ("ip", "192.0.2.7/24", "192.0.2.7"),
    ("ip", "١.1.1.1", "192.0.2.7"),
    ("cidr", "10.8.0.0", "prefix"),
    ("cidr", "10.8.0.0/33", "/32"),
    ("cidr", "10.8.0.5/24", "10.8.0.0/24"),
    ("cidr", "10.0.0.0/255.0.0.0", "prefix"),
    ("cidr", "10.0.0.0/08", "prefix"),
    ("path", "srv/www", "absolute"),
    ("path", "/srv/../etc", ".."),
    ("path", "/srv/..", ".."),
    ("path", "/a\nb", "line breaks"),
    ("path", "/a\x1b[31m", "control"),
    ("path", "/" + "a" * 4095, "4,095"),
    ("identifier", "1a", "letter"),
    ("identifier", "a b", "letter"),
    ("identifier", "-a", "letter"),
    ("identifier", "a" * 65, "64"),
    ("identifier", "kullanıcı", "letter"),
    ("url", "example.org", "https://"),
    ("url", "ftp://example.org", "https://"),
    ("url", "javascript:alert(1)", "https://"),
    ("url", "https://", "https://"),
    ("url", "https://a b/", "https://"),
    ("url", "https://example.org/ğ", "https://"),
    ("url", "https://example.org:99999/", "https://"),
    ("url", "https://exa_mple.org/", "https://"),
    ("duration", "1.5h", "unit"),
    ("duration", "-1s", "unit"),
    ("duration", "1y", "unit"),
    ("duration", "h", "unit"),
    ("duration", "99999999999s", "unit"),
]


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED)
def test_a_bad_value_is_refused_with_what_would_be_right(kind: str, value: object, words: str) -> None:
    sentence = refusal(variable(kind), value)
    assert sentence.startswith("V cannot be ")
    assert sentence.endswith(".")
    assert words in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize(
    "value",
    [
        "hunter2-Correct!Horse",
        "env:PATH",
        "env:HYPRBOX_SECRET_",
        "env:HYPRBOX_SECRET_a",
        "file:/etc/shadow",
        "file:/etc/hyprbox/secrets/../shadow",
        "file:/etc/hyprbox/secrets//x",
        "file:/etc/hyprbox/secrets/.hidden",
        "file:relative",
        "ENV:HYPRBOX_SECRET_A",
    ],
)
def test_what_is_no_pointer_to_a_secret_is_refused_without_being_repeated(value: str) -> None:
    sentence = refusal(variable("secret_ref"), value)
    assert sentence == refusal(variable("secret_ref"), "something else"), "it does not depend on the value"
    assert "env:HYPRBOX_SECRET_NAME or file:/etc/hyprbox/secrets/NAME" in sentence


def test_a_url_with_a_password_is_refused_without_being_repeated() -> None:
    sentence = refusal(variable("url"), "https://me:hunter2@example.org/")
    assert "hunter2" not in sentence
    assert "secret_ref" in sentence


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        (variable("int", min=1, max=10), 0, "at least 1"),
        (variable("int", min=1, max=10), "11", "at most 10"),
        (variable("port", min=1024), 80, "at least 1024"),
        (variable("duration", min="1m", max="1h"), "59s", "at least 1m"),
        (variable("duration", min="1m", max="1h"), "61m", "at most 1h"),
        (variable("string", max_length=3), "abcd", "at most 3"),
        (variable("string", pattern="[a-z]+"), "abc1", "[a-z]+"),
        (variable("string", pattern="[a-z]+"), "abc\n", "[a-z]+"),
        (variable("string", pattern="[a-z]+"), "a" * 1025, "at most 1024"),
        (variable("string", no_leading_dash=True), "-rf", "dash"),
        (variable("int", no_leading_dash=True), -1, "dash"),
    ],
)
def test_limits_of_the_declaration_hold(declared: Variable, value: object, words: str) -> None:
    assert words in refusal(declared, value)


def test_a_missing_value_takes_the_default_and_a_required_one_without_is_named() -> None:
    variables = (
        Variable("PORT", "port", default="80", required=True),
        Variable("NAME", "string", required=True),
        Variable("NOTE", "string"),
    )
    assert validate(variables, {"NAME": "x"}) == {"PORT": "80", "NAME": "x", "NOTE": ""}
    assert validate(variables, {"NAME": "x", "PORT": None})["PORT"] == "80"
    with pytest.raises(InvalidVariables) as caught:
        validate(variables, {"PORT": ""})
    assert set(caught.value.fields) == {"PORT", "NAME"}
    assert caught.value.fields["NAME"] == ["NAME is required: write some text."]


def test_an_optional_variable_may_be_emptied_although_it_has_a_default() -> None:
    assert validate((variable("duration", default="30d"),), {"V": ""}) == {"V": ""}
    assert validate((variable("duration", default="30d"),), {}) == {"V": "2592000"}


def test_every_bad_value_and_every_unknown_name_is_named_at_once() -> None:
    variables = (Variable("A", "int"), Variable("B", "port"), Variable("C", "bool"))
    with pytest.raises(InvalidVariables) as caught:
        validate(variables, {"A": "x", "B": 0, "C": True, "D": 1, "\u202e": 2})
    assert set(caught.value.fields) == {"A", "B", "D", "?"}


def test_all_values_together_have_a_limit() -> None:
    variables = tuple(Variable(f"V{number}", "string") for number in range(40))
    with pytest.raises(InvalidVariables) as caught:
        validate(variables, {f"V{number}": "x" * 60_000 for number in range(40)})
    assert "2,097,152" in caught.value.fields["variables"][0]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["-", "0", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(params.TYPES), JSON)
def test_any_json_is_either_refused_in_words_or_passes_and_passes_again(kind: str, value: object) -> None:
    declared = variable(kind)
    try:
        text = validate((declared,), {"V": value})["V"]
    except InvalidVariables as error:
        assert error.fields["V"][0].endswith(".")
        assert error.fields["V"][0].isprintable()
        return
    assert "\0" not in text
    assert validate((declared,), {"V": text}) == {"V": text}
    if kind in params.NUMBERS and text:
        assert text.lstrip("-").isdigit()
        assert text.isascii()


@pytest.mark.parametrize("kind", [kind for kind in params.TYPES if kind not in ("string", "int", "enum")])
def test_no_value_of_the_other_types_starts_with_a_dash(kind: str) -> None:
    for value in ("-", "-x", "--help", "-1", "-a.b"):
        refusal(variable(kind), value)


def test_every_type_has_a_check_and_can_be_declared() -> None:
    for kind in params.TYPES:
        assert declarations.variable_document(variable(kind))["type"] == kind


def test_a_missing_choice_names_the_choices() -> None:
    mode = Variable(name="MODE", type="enum", required=True, choices=("fast", "safe"))
    with pytest.raises(params.InvalidValue, match=r"^MODE is required: choose one of fast, safe\.$"):
        params.check_value(mode, None)
