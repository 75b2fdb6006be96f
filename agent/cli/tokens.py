"""`hyprbox token`. A token's secret is shown once, by `create`, and never again."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import printing
from agent.cli.api import Api
from agent.cli.base import current, family
from agent.cli.exits import NotThere
from agent.cli.options import FROM_NOW
from agent.cli.printing import Column

SCHEME, PREFIX_LENGTH = "hbnt_", 8
token = family("token", "Tokens with which servers enrol. For admins.")


@token.command("create", short_help="Create a token and show it, this once.")
@click.argument("name")
@click.option("--node", "node_id", default="", metavar="NODE", help="Good for this node only, which is made now.")
@click.option("--expires", type=FROM_NOW, metavar="TIME", help="Such as 30d, or a date; without it, it does not end.")
def create(name: str, node_id: str, expires: str | None) -> None:
    """Create a token and show it, this once, with the command for the new server."""
    body: dict[str, Any] = {"name": name}
    if node_id:
        body["node_id"] = node_id
    if expires:
        body["expires_at"] = expires
    made = Api(current()).post("/api/tokens", body)
    if current().as_json:
        printing.as_json(made)
        return
    printing.say(made["token"])
    printing.note("This is the only time it is shown. On the new server:")
    printing.note("")
    printing.note(f"  {made['install_command']}")


@token.command("list")
def list_tokens() -> None:
    """All tokens, without their secrets."""
    found = Api(current()).pages("/api/tokens")
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("ID"), Column("NAME", flexible="cut"), Column("PREFIX"), Column("NODE", minor=2), Column("STATE"),
        Column("USED", minor=1), Column("CREATED BY", minor=3),
    ]  # fmt: skip
    printing.table(columns, [_row(each) for each in found], empty="There are no tokens.")


def _row(each: dict[str, Any]) -> list[Any]:
    used = printing.ago(each["last_used_at"])
    return [each["id"], each["name"], each["prefix"], each["node_id"], _state(each), used, each["created_by"]]


def _state(each: dict[str, Any]) -> str:
    if each["revoked_at"]:
        return "revoked"
    if not each["expires_at"]:
        return "valid"
    left = (printing.parse_time(each["expires_at"]) - printing.now()).total_seconds()
    return "expired" if left <= 0 else f"valid for {printing.left(left)}"


@token.command("revoke", short_help="End a token.")
@click.argument("which", metavar="ID|PREFIX")
def revoke(which: str) -> None:
    """End a token, by its id or its prefix. Its server is shut out within seconds."""
    if which.startswith(SCHEME):  # a whole token, perhaps: what follows the prefix is its secret
        which = which[len(SCHEME) : len(SCHEME) + PREFIX_LENGTH]
    api = Api(current())
    found = [each for each in api.pages("/api/tokens") if which in (each["id"], each["prefix"])]
    if not found:
        raise NotThere(f"There is no token with the id or prefix “{which[:36]}”.", code="unknown_token")
    api.delete(f"/api/tokens/{found[0]['id']}")
    if current().as_json:
        printing.as_json({"id": found[0]["id"], "revoked": True})
    else:
        printing.say(f"The token “{found[0]['name']}” is revoked.")


COMMANDS = {"token": token}
