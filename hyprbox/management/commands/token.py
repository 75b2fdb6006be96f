"""`manage.py token create|list|revoke`: node tokens, for whoever has a shell on the host."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from hyprbox import enrolment
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence
from hyprbox.management.tables import as_json
from tokens import selectors, services
from tokens.api import TokenSerializer
from tokens.models import NodeToken

_BY = Actor.system("manage.py token")


class Command(BaseCommand):
    help = "Create, list or revoke node tokens."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|revoke")
        create = verbs.add_parser("create", help="make a token; it is shown this once")
        create.add_argument("node_id", nargs="?", default="", help="pin it to this node; without, its first use does")
        create.add_argument("--name", default="", help="what the token is called in lists; the node's name without it")
        create.add_argument("--days", type=int, help="how long it works; without end by default")
        listing = verbs.add_parser("list", help="all tokens, without their secrets")
        listing.add_argument("--json", action="store_true", help="for programs")
        revoke = verbs.add_parser("revoke", help="end a token, within 5 seconds everywhere")
        revoke.add_argument("token", help="its id, or its prefix as the list shows it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error

    def _create(self, options: dict[str, Any]) -> None:
        name = options["name"] or options["node_id"] or "token of the command line"
        if options["days"] is not None and options["days"] < 1:
            raise CommandError("--days is a whole number from 1 on.")
        ends = timezone.now() + timedelta(days=options["days"]) if options["days"] else None
        made = enrolment.enrol(by=_BY, name=name, node_id=options["node_id"], expires_at=ends)
        self.stdout.write(made.plaintext)
        self.stderr.write(f"Shown this once. On the new server:\n\n    {made.install_command}\n")
        if made.hint:
            self.stderr.write(made.hint)

    def _list(self, options: dict[str, Any]) -> None:
        tokens = list(selectors.list_tokens(by=_BY))
        if options["json"]:
            self.stdout.write(as_json(TokenSerializer(tokens, many=True).data))
            return
        now = timezone.now()
        for token in tokens:
            is_over = token.expires_at is not None and token.expires_at <= now
            state = "revoked" if token.revoked_at else "expired" if is_over else "usable"
            last = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never used"
            self.stdout.write(f"{token.prefix}  {state:8}{token.node_id or '-':32}{last:18}{token.name}")

    def _revoke(self, options: dict[str, Any]) -> None:
        token = services.revoke_token(by=_BY, token_id=self._find(options["token"]))
        self.stdout.write(f"{token.name} ({token.prefix}) is revoked.")

    def _find(self, text: str) -> str:
        """An id as it is; for a prefix the id of the one token that has it."""
        prefix = text.removeprefix("hbnt_")[:8]
        found: list[NodeToken] = list(selectors.list_tokens(by=_BY).filter(prefix=prefix))
        if len(found) > 1:
            raise CommandError(f"Several tokens begin with {prefix}: give the id instead.")
        return str(found[0].pk) if found else text
