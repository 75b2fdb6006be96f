"""`hyprbox preset`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from agent.cli import names, printing, variables
from agent.cli.api import Api
from agent.cli.apply import apply
from agent.cli.base import current, family
from agent.cli.printing import Column

preset = family("preset", "What can be run on servers, and running it.")
preset.add_command(apply)
PARTS = ("check", "apply", "verify", "rollback")


@preset.command("list")
@click.option("--local", is_flag=True, help="Those that come with HyprBox, without a server.")
def list_presets(local: bool) -> None:
    """All presets."""
    found = [_local_document(each) for each in _builtin()] if local else _from_server()
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("NAME"),
        Column("RISK", coloured=True),
        Column("CATEGORY", minor=1),
        Column("TITLE", flexible="wrap"),
    ]
    rows = [(each["name"], each["risk"], each["category"], each["title"]) for each in found]
    printing.table(columns, rows, empty="There are no presets.")


def _from_server() -> list[Any]:
    api = Api(current())
    found: list[Any] = api.get("/api/presets")["results"]
    names.remember(api.url, presets=[each["name"] for each in found])
    return found


def _builtin() -> list[Any]:
    from presets import catalogue

    return list(catalogue.builtin().values())


def _local_document(each: Any) -> dict[str, Any]:
    """The facts of a built-in preset that a list and a page of it show, named as in the API."""
    shown = ("name", "title", "description", "category", "risk", "timeout_seconds", "revision")
    keys = ("name", "type", "required", "default", "help", "min", "max", "pattern", "max_length")
    return {
        **{key: getattr(each, key) for key in shown},
        "systems": list(each.systems),
        "variables": [
            {**{key: getattr(one, key) for key in keys}, "choices": list(one.choices)} for one in each.variables
        ],
        "parts": list(each.parts),
        "builtin": True,
    }


@preset.command("show")
@click.argument("name", shell_complete=names.complete_presets)
@click.option("--local", is_flag=True, help="One that comes with HyprBox, without a server.")
@click.option("--source", is_flag=True, help="Print its bash parts, too.")
def show(name: str, local: bool, source: bool) -> None:
    """What a preset does and what it takes."""
    found = _find(name, local)
    if current().as_json:
        printing.as_json(found)
        return
    printing.facts(
        {
            "Name": found["name"],
            "Title": found["title"],
            "Category": found["category"],
            "Risk": found["risk"],
            "Systems": ", ".join(found["systems"]) or "any Linux",
            "Parts": ", ".join(found["parts"]),
            "Time-out": printing.duration(found["timeout_seconds"]),
            "Revision": found["revision"],
        }
    )
    printing.write("\n")
    printing.paragraph(found["description"])
    if found["variables"]:
        printing.write("\n")
        columns = [
            Column("VARIABLE"),
            Column("TYPE", flexible="wrap"),
            Column("DEFAULT", flexible="wrap"),
            Column("HELP", flexible="wrap"),
        ]
        printing.table(columns, [_variable_row(each) for each in found["variables"]], empty="")
    if source:
        for part in found["parts"]:
            printing.write(f"\n# {part}\n" + printing.clean_text(found[part]))


def _find(name: str, local: bool) -> dict[str, Any]:
    if local:
        from agent.cli.local import find

        each = find(name)
        return {**_local_document(each), **each.parts, "warnings": list(each.warnings)}
    found: dict[str, Any] = Api(current()).get(f"/api/presets/{quote(name, safe='')}")
    return found


def _variable_row(each: dict[str, Any]) -> tuple[Any, ...]:
    kind = "|".join(each.get("choices") or []) or each["type"]
    default = each["default"]
    if default is None:
        default = "(required)" if each["required"] else ""
    elif isinstance(default, bool):
        default = str(default).lower()
    return each["name"], kind, default, each["help"]


@preset.command("preview", short_help="The script exactly as it would run.")
@click.argument("name", shell_complete=names.complete_presets)
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A variable's value; may be repeated.")
@click.option("--vars-file", default="", metavar="FILE", help="Values in YAML or JSON; - is stdin.")
@click.option("--local", is_flag=True, help="One that comes with HyprBox, without a server.")
def preview(name: str, assignments: tuple[str, ...], vars_file: str, local: bool) -> None:
    """The script exactly as it would run. Nothing is run."""
    values = variables.gather(assignments, vars_file)
    rendered = _rendered(name, values, local)
    if current().as_json:
        printing.as_json(rendered)
        return
    printing.write(rendered["script"] if not printing.is_terminal() else printing.clean_text(rendered["script"]))
    for warning in rendered["warnings"]:
        printing.note(f"Note: {warning}")


def _rendered(name: str, values: dict[str, Any], local: bool) -> dict[str, Any]:
    if not local:
        path = f"/api/presets/{quote(name, safe='')}/render"
        answer: dict[str, Any] = Api(current()).post(path, {"variables": values})
        return answer
    from agent.cli.local import find, render

    done = render(find(name), values)
    return {
        "script": done.text,
        "sha256": done.sha256,
        "revision": done.revision,
        "warnings": list(done.warnings),
    }


COMMANDS = {"preset": preset}
