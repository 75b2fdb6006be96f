"""Reading preset documents: strict, complete in its complaints, the same from YAML and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from presets import documents
from presets.documents import PresetError, load_json, load_yaml, parse, to_document
from presets.tests.helpers import document, make_preset

PORT: dict[str, Any] = {"name": "PORT", "type": "port"}


def complaints(**over: Any) -> dict[str, list[str]]:
    with pytest.raises(PresetError) as caught:
        parse(document(**over))
    return caught.value.fields


def test_a_document_reads_the_same_from_yaml_and_json_and_back() -> None:
    full = document(
        systems=["debian-12", "ubuntu-24.04", "alpine"],
        tested=["debian-12"],
        timeout_seconds=60,
        check="true\n",
        verify="true\n",
        rollback="true\n",
        variables=[
            {"name": "A", "type": "string", "pattern": "[a-z]*", "max_length": 5, "default": "abc", "help": "Some."},
            {"name": "B", "type": "duration", "min": "1m", "max": "1h", "default": "15m"},
            {"name": "C", "type": "enum", "choices": ["x", "y"], "required": True},
            {"name": "D", "type": "bool", "default": True},
            {"name": "E", "type": "int", "min": -5, "max": 5, "default": -1},
            {"name": "F", "type": "secret_ref"},
        ],
    )
    preset = parse(full)
    assert load_yaml(yaml.safe_dump(full)) == preset
    assert load_json(json.dumps(full)) == preset
    assert parse(to_document(preset)) == preset
    assert load_yaml(yaml.safe_dump(to_document(preset))) == preset
    assert to_document(preset)["variables"][1]["default"] == "15m"
    assert to_document(preset)["tested"] == ["debian-12"]
    assert parse(document(tested=["arch"])).tested == ("arch",), "no systems means any"
    assert list(preset.parts) == ["check", "apply", "verify", "rollback"]


def test_the_revision_is_the_digest_of_what_the_preset_is() -> None:
    preset = make_preset(variables=[PORT])
    assert len(preset.revision) == 64
    assert make_preset(variables=[PORT], systems=[], timeout_seconds=900).revision == preset.revision
    assert make_preset(variables=[PORT], apply="false\n").revision != preset.revision
    assert make_preset(variables=[{**PORT, "default": 80}]).revision != preset.revision
    assert replace(preset, warnings=("x",)).revision == preset.revision


@pytest.mark.parametrize(
    ("over", "path", "words"),
    [
        ({"name": "Bad"}, "name", "a to z"),
        ({"name": "a"}, "name", "2 to 63"),
        ({"name": "a" * 64}, "name", "2 to 63"),
        ({"name": "ab\n"}, "name", "2 to 63"),
        ({"name": None}, "name", "required"),
        ({"title": "two\nlines"}, "title", "one line"),
        ({"title": "x" * 121}, "title", "120"),
        ({"title": "a\u202eb"}, "title", "printable"),
        ({"title": None}, "title", "required"),
        ({"description": " "}, "description", "required"),
        ({"category": "Web!"}, "category", "a-z"),
        ({"risk": "low"}, "risk", "safe, confirm, dangerous"),
        ({"risk": ["safe"]}, "risk", "safe, confirm, dangerous"),
        ({"systems": "debian-12"}, "systems", "list"),
        ({"systems": ["Debian 12"]}, "systems[0]", "debian-12"),
        ({"systems": [12]}, "systems[0]", "debian-12"),
        ({"tested": "debian-12"}, "tested", "list"),
        ({"tested": ["Debian"]}, "tested[0]", "debian-12"),
        ({"systems": ["debian-12"], "tested": ["debian-12", "alpine"]}, "tested[1]", "not among"),
        ({"timeout_seconds": 0}, "timeout_seconds", "1 to 86400"),
        ({"timeout_seconds": True}, "timeout_seconds", "1 to 86400"),
        ({"timeout_seconds": "900"}, "timeout_seconds", "1 to 86400"),
        ({"apply": None}, "apply", "required"),
        ({"apply": "  \n"}, "apply", "required"),
        ({"apply": "a\0b"}, "apply", "NUL"),
        ({"apply": "a\ud800b"}, "apply", "surrogate"),
        ({"apply": "echo a\rb\n"}, "apply", "carriage return"),
        ({"apply": "#" * 600_000}, "apply", "524,288"),
        ({"check": ""}, "check", "leave it out"),
        ({"check": 5}, "check", "bash"),
        ({"before": "x"}, "before", "Unknown key"),
        ({"variables": {}}, "variables", "list"),
        ({"variables": [PORT] * 257}, "variables", "256"),
        ({"variables": [PORT, PORT]}, "variables", "PORT is declared twice"),
        ({"variables": ["PORT"]}, "variables[0]", "mapping"),
        ({"variables": [{"name": "PORT"}]}, "variables[0].type", "one of string"),
        ({"variables": [{**PORT, "name": "port"}]}, "variables[0].name", "A to Z"),
        ({"variables": [PORT, {**PORT, "name": "PATH"}]}, "variables[1].name", "meaning to bash"),
        ({"variables": [{**PORT, "name": "LD_PRELOAD"}]}, "variables[0].name", "meaning to bash"),
        ({"variables": [{**PORT, "name": "HYPRBOX_JOB_ID"}]}, "variables[0].name", "meaning to bash"),
        ({"variables": [{**PORT, "choices": ["1"]}]}, "variables[0].choices", "Unknown key"),
        ({"variables": [{**PORT, "pattern": "x"}]}, "variables[0].pattern", "Unknown key"),
        ({"variables": [{**PORT, "required": "yes"}]}, "variables[0].required", "true or false"),
        ({"variables": [{**PORT, "min": "1"}]}, "variables[0].min", "whole number"),
        ({"variables": [{**PORT, "min": 9, "max": 5}]}, "variables[0].min", "larger"),
        ({"variables": [{**PORT, "default": 0}]}, "variables[0].default", "1 to 65535"),
        ({"variables": [{**PORT, "min": 100, "default": 80}]}, "variables[0].default", "at least 100"),
        ({"variables": [{**PORT, "required": True, "default": ""}]}, "variables[0].default", "required"),
        ({"variables": [{**PORT, "help": 5}]}, "variables[0].help", "500"),
        ({"variables": [{"name": "S", "type": "string", "pattern": r"(a)\1"}]}, "variables[0].pattern", "backreferences"),
        ({"variables": [{"name": "S", "type": "string", "max_length": 0}]}, "variables[0].max_length", "65536"),
        ({"variables": [{"name": "S", "type": "duration", "min": "1y"}]}, "variables[0].min", "unit"),
        ({"variables": [{"name": "S", "type": "enum"}]}, "variables[0].choices", "required"),
        ({"variables": [{"name": "S", "type": "enum", "choices": []}]}, "variables[0].choices", "1 to 200"),
        ({"variables": [{"name": "S", "type": "enum", "choices": ["a", "a"]}]}, "variables[0].choices", "twice"),
        ({"variables": [{"name": "S", "type": "enum", "choices": ["a", 1]}]}, "variables[0].choices[1]", "quotes"),
        ({"variables": [{"name": "S", "type": "enum", "choices": ["-a"]}]}, "variables[0].choices[0]", "dash"),
        ({"variables": [{"name": "S", "type": "enum", "choices": ["a"], "default": "b"}]}, "variables[0].default", "one of a"),
        ({"variables": [{"name": "S", "type": "secret_ref", "default": "env:HYPRBOX_SECRET_X"}]}, "variables[0].default", "no default"),
    ],
)  # fmt: skip
def test_a_fault_is_named_under_its_key(over: dict[str, Any], path: str, words: str) -> None:
    found = complaints(**over)
    assert path in found, found
    assert any(words in sentence for sentence in found[path]), found


def test_every_fault_is_named_at_once() -> None:
    assert set(complaints(name="X", risk="low", extra=1, variables=[{**PORT, "max": "x"}])) == {
        "name",
        "risk",
        "extra",
        "variables[0].max",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping"),
        ("- a", "mapping"),
        ("name: a\nname: b\n", "twice"),
        ("a: &x 1\nb: *x\n", "Anchors"),
        ("a: [\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['id']\n", "not valid YAML"),
        ("? [a]\n: b\n", "Keys are texts"),
        ("true: b\n", "Keys are texts"),
        ("a: " + "[" * 40 + "]" * 40, "too deeply"),
        (b"\xff\xfe", "UTF-8"),
        ("a: \x01\n", "not valid YAML"),
        ("a: !!int x\n", "not valid YAML"),
        ("a: !!timestamp 2001-99-99\n", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_document_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(PresetError) as caught:
        load_yaml(text)
    assert words in caught.value.fields["document"][0]


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"name": "a", "name": "b"}', "[" * 100_000, '{"a": NaN}', "1" * 5000, '"\\ud800"', b"\xff"],
)
def test_what_is_no_plain_json_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(PresetError):
        load_json(text)


def test_a_document_over_two_mebibytes_is_refused() -> None:
    with pytest.raises(PresetError) as caught:
        load_yaml("a: " + "x" * 2_100_000)
    assert "2,097,152" in caught.value.fields["document"][0]


def test_a_preset_whose_script_could_never_be_rendered_is_refused() -> None:
    long = "#" + "x" * 400_000 + "\n"
    parse(document(check=long, apply=long))
    with pytest.raises(PresetError) as caught:
        parse(document(check=long, apply=long, verify=long))
    assert caught.value.fields == {"document": ["Its parts have 1,200,006 bytes; a script has at most 1,048,576."]}


def test_yaml_words_that_look_like_values_stay_text() -> None:
    choices = ["yes", "no", "on", "12:30", "010", "0x1f", "1_000", "2001-01-01", "1e3", ".inf"]
    text = yaml.safe_dump(document()) + "variables:\n- name: A\n  type: enum\n  choices: [" + ", ".join(choices) + "]\n"
    assert load_yaml(text).variables[0].choices == tuple(choices)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(documents._KEYS)), ANYTHING)
def test_any_value_under_any_key_is_read_or_complained_about(key: str, value: object) -> None:
    try:
        parse({**document(), key: value})
    except PresetError as error:
        assert error.fields


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "type", "required", "default", "help", "min", "max", "pattern", "choices", "max_length"]
        ),
        ANYTHING | st.sampled_from(["int", "enum", "duration", "string", "A", "secret_ref"]),
    )
)
def test_any_variable_entry_is_read_or_complained_about(entry: dict[str, object]) -> None:
    try:
        parse(document(variables=[entry]))
    except PresetError as error:
        assert error.fields
