"""Known secrets, driven through everything that takes or makes one. Afterwards none of them is anywhere it does not belong."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client

from accounts import mails, passwords, services
from accounts.models import RateCounter, User
from accounts.tests.apps import SEED, Clock, give_app
from audit import sequencer
from audit import services as audit
from hyprbox.lib.actors import Actor
from hyprbox.lib.logs import HIDDEN
from hyprbox.lib.postgres import EmbeddedPostgres
from nodes.models import Node
from tests import factories
from tests.client import ApiClient

HERE = Actor.anonymous(ip="127.0.0.1")
TOKEN = re.compile(r"hb(?:nt|ak)_[a-z0-9]{8}[A-Za-z0-9_-]{43}")


class Canaries:
    """Secrets by what they are, and all text that somebody who should not know them could see."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.seen: list[str] = []

    def own(self, name: str) -> str:
        """A secret of a person's choice."""
        return self.keep(name, f"Canary {len(self.secrets):02d} sings 7Gq! at dawn")

    def keep(self, name: str, secret: str) -> str:
        assert len(secret) >= 8, name
        self.secrets[name] = secret
        return secret

    def see(self, answer: Any) -> Any:
        """An answer that is not the one place where a secret belongs."""
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        self.seen.append(f"{answer.headers} {body.decode('utf-8', 'replace')}")
        return answer

    def found_in(self, text: str) -> list[str]:
        return [name for name, secret in self.secrets.items() if any(form in text for form in _forms(secret))]


def _forms(secret: str) -> Iterator[str]:
    """As it is, in hex, and in base64 wherever it may begin within a larger text."""
    raw = secret.encode()
    yield secret
    yield raw.hex()
    for shift in range(3):
        inside = base64.b64encode(b"\0" * shift + raw).decode()
        yield inside[4 if shift else 0 : len(inside) - len(inside) % 4 - 4]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, at any level, in the form in which it would be written."""
    stream, formatter = io.StringIO(), settings.LOGGING["formatters"]["json"]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        formatter["()"](processors=formatter["processors"], foreign_pre_chain=formatter["foreign_pre_chain"])
    )
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def dump() -> str:
    """Every row of every table, as a dump has them; binary columns in hex."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
    assert len(tables) > 25
    blocks = []
    for table in tables:
        with connection.connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
            blocks += [bytes(block).decode() for block in copy]
    return "".join(blocks)


def wal_segment() -> str:
    """The name of the file to which the database writes ahead just now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        return str(cursor.fetchone()[0])


def wal_since(first: str) -> str:
    """What was written ahead from that file on, as it lies on the disk: what is rolled back is there as well."""
    cluster = EmbeddedPostgres(settings.HYPRBOX_VAR_DIR)
    cluster.execute("CHECKPOINT")  # whatever is still in memory
    last = wal_segment()
    files = [path for path in (cluster.place.data / "pg_wal").iterdir() if first <= path.name <= last]
    assert files
    return "".join(path.read_bytes().decode("latin-1") for path in sorted(files))


def log_in_and_out(api: ApiClient, user: User, canaries: Canaries) -> ApiClient:
    first = api.post("/api/auth/login", {"email": user.email, "password": factories.PASSWORD}).json()
    canaries.keep("an access token", first["access"])
    second = api.post("/api/auth/refresh", {"refresh": canaries.keep("a refresh token", first["refresh"])}).json()
    canaries.keep("the next refresh token", second["refresh"])
    canaries.see(api.post("/api/auth/login", {"email": user.email, "password": canaries.own("a wrong password")}))
    canaries.see(api.post("/api/auth/login", {"email": canaries.own("a password as address"), "password": "x"}))
    canaries.see(api.post("/api/auth/refresh", {"refresh": first["refresh"][:-4] + "AAAA"}))
    return ApiClient(f"Bearer {second['access']}")


def passwords_everywhere(admin: ApiClient, api: ApiClient, otto: User, canaries: Canaries) -> None:
    person = {"email": "new@example.com", "password": canaries.own("a new person's password")}
    canaries.see(admin.post("/api/users", person))
    canaries.see(admin.post("/api/users", person))
    canaries.see(api.post("/api/auth/register", {**person, "password": canaries.own("a stranger's password")}))
    mine = api.by(otto)
    new, wrong = canaries.own("a changed password"), canaries.own("a wrong current password")
    canaries.see(mine.post("/api/auth/password", {"current": wrong, "new": new}))
    canaries.see(mine.post("/api/auth/password", {"current": factories.PASSWORD, "new": new}))
    canaries.see(api.post("/api/auth/reset", {"email": otto.email}))
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    mails.send_reset(issued[0], canaries.keep("a link to a new password", issued[1]))
    confirmed = {"token": issued[1], "new": canaries.own("a password by link")}
    for _ in range(2):
        canaries.see(api.post("/api/auth/reset/confirm", confirmed))
    canaries.see(Client().get(f"/reset/{issued[1]}/"))
    canaries.see(admin.post("/api/users/invite", {"email": "guest@example.com"}))
    [secret] = re.findall(r"/invitation/(\S+)/", mail.outbox[-1].body)
    canaries.keep("an invitation's link", secret)
    guest = Client()
    for password in (canaries.own("a guest's password"), "short"):
        canaries.see(guest.post(f"/invitation/{secret}/", {"name": "Guest", "password": password}))
    assert User.objects.filter(email="guest@example.com").exists()


def tokens_and_keys(admin: ApiClient, ada: User, canaries: Canaries) -> None:
    made = admin.post("/api/tokens", {"name": "one", "node_id": "web-9"}).json()
    canaries.keep("a node token", made["token"])
    canaries.keep("its successor", admin.post(f"/api/tokens/{made['id']}/rotate").json()["token"])
    key = admin.post("/api/auth/keys", {"name": "ci", "scopes": ["read"]}).json()
    canaries.keep("an API key", key["key"])
    canaries.see(ApiClient(f"Bearer {key['key']}").post("/api/users", {"email": "x"}))
    canaries.see(admin.delete(f"/api/tokens/{made['id']}"))
    client = Client()
    client.post("/login/", {"email": ada.email, "password": factories.PASSWORD})
    canaries.keep("a session's key", client.cookies["hb_session"].value)
    shown = client.post("/settings/tokens/", {"name": "two"}).content.decode()
    canaries.keep("a token of the page", TOKEN.findall(shown)[0])
    form = {"name": "three", "expires_at_0": "", "expires_at_1": ""}
    shown = client.post("/django-admin/tokens/nodetoken/add/", form).content.decode()
    canaries.keep("a token of the admin", TOKEN.findall(shown)[0])
    for page in ("/profile/", "/settings/tokens/", "/settings/people/", "/audit/", "/django-admin/tokens/nodetoken/"):
        canaries.see(client.get(page))
    canaries.seen.append(str(dict(client.session.items())))


def second_factors(vera: User, api: ApiClient, clock: Clock, canaries: Canaries) -> None:
    canaries.keep("a seed", SEED)
    codes = give_app(vera, clock)
    for number, code in enumerate(codes):
        canaries.keep(f"recovery code {number}", code)
        canaries.keep(f"recovery code {number} as it is hashed", code.replace("-", ""))
    login = {"email": vera.email, "password": factories.PASSWORD}
    assert canaries.see(api.post("/api/auth/login", {**login, "otp": "aaaaa-aaaaa"})).status_code == 401
    assert api.post("/api/auth/login", {**login, "otp": codes[0]}).status_code == 200


def strangers(api: ApiClient, canaries: Canaries) -> None:
    shown = (
        f"Bearer {canaries.keep('a node token nobody has', 'hbnt_zzzzzzzz' + 'Q' * 43)}",
        f"Bearer {canaries.keep('a key nobody has', 'hbak_zzzzzzzz' + 'W' * 43)}",
        f"Basic {canaries.keep('a basic login', 'b3R0bzpjYW5hcnkgYmFzaWM=')}",
        f"Bearer {canaries.keep('nonsense', 'canary-nonsense-0815-bearer')}",
    )
    for header in shown:
        for path in ("/api/auth/me", "/api/nodes", "/api/agent/keys"):
            canaries.see(api.get(path, authorization=header))


def defects(api: ApiClient, ada: User, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks shows an id; the log shows what broke, and hides what looks like a secret."""
    secret = canaries.keep("a password in an error", "canary-0098-error")
    database = canaries.keep("a password in an address", "canary-0099-database")

    def broken(*_args: Any, **_more: Any) -> Any:
        token = canaries.secrets["a node token"]
        raise RuntimeError(f"password={secret}; postgresql://hyprbox:{database}@db/x; Authorization: Bearer {token}")

    with monkeypatch.context() as patch:
        patch.setattr(services, "log_in", broken)
        answer = canaries.see(api.post("/api/auth/login", {"email": ada.email, "password": secret}))
        assert answer.status_code == 500


def keys_of_the_house(canaries: Canaries) -> None:
    canaries.keep("the secret key", settings.SECRET_KEY)
    for name in ("SIGNING", "MAC", "SECRETS"):
        path: Path = getattr(settings, f"HYPRBOX_{name}_KEY_FILE")
        text = path.read_text().split()[0]
        canaries.keep(f"the {name.lower()} key", text)
        canaries.keep(f"the {name.lower()} key in base64", base64.b64encode(bytes.fromhex(text)).decode())


def secrets_for_pointers(admin: ApiClient, canaries: Canaries) -> None:
    """Where a pointer to a secret belongs somebody types the secret."""
    order = {"preset": "restic-backup", "node_id": "web-1"}
    for call, more in (
        ("/api/jobs", {}),
        ("/api/jobs/batches", {"node_id": None, "node_ids": ["web-1"]}),
        ("/api/drift/pins", {}),
        ("/api/presets/restic-backup/render", {"preset": None, "node_id": None}),
    ):
        typed = canaries.own(f"a secret for {call}")
        body = {**order, "variables": {"REPOSITORY": "/mnt/backup", "PASSWORD": typed}, **more}
        answer = canaries.see(admin.post(call, {name: value for name, value in body.items() if value is not None}))
        assert "variables.PASSWORD" in answer.json()["error"]["fields"], answer.content


@pytest.mark.slow
def test_thirty_secrets_are_nowhere(
    api: ApiClient,
    ada: User,
    otto: User,
    vera: User,
    web_1: Node,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    canaries, first_segment = Canaries(), wal_segment()
    keys_of_the_house(canaries)
    admin = log_in_and_out(api, ada, canaries)
    passwords_everywhere(admin, api, otto, canaries)
    RateCounter.objects.all().delete()
    tokens_and_keys(admin, ada, canaries)
    second_factors(vera, api, Clock(monkeypatch), canaries)
    secrets_for_pointers(admin, canaries)
    strangers(api, canaries)
    defects(api, ada, canaries, monkeypatch)
    sequencer.sequence()
    for path in ("/api/audit?page_size=200", "/api/audit/export?format=csv", "/api/audit/export", "/api/tokens"):
        assert canaries.see(api.by(ada).get(path)).status_code == 200
    for path in ("/api/auth/keys", "/api/auth/sessions", "/api/users", "/api/users/invite", "/api/nodes"):
        assert canaries.see(api.by(ada).get(path)).status_code == 200
    call_command("audit_export", "--format", "csv")
    call_command("token", "list")
    canaries.seen.append(capsys.readouterr().out)

    assert len(canaries.secrets) >= 30
    logged = log.getvalue()
    assert "api.failed" in logged and HIDDEN in logged  # the defect is told, without what it carried
    assert canaries.found_in(logged) == []
    assert canaries.found_in(dump()) == []
    assert canaries.found_in(wal_since(first_segment)) == []
    assert canaries.found_in("\n".join(canaries.seen)) == []
    assert canaries.found_in("\n".join(message.body for message in mail.outbox)) == [
        "a link to a new password",
        "an invitation's link",
    ]
    assert audit.verify_log(by=factories.SYSTEM).intact is True


def test_what_runs_and_with_what_is_told_of_by_hash_alone(
    api: ApiClient, ada: User, web_1: Node, log: io.StringIO, client: Client
) -> None:
    """Scripts and values are with their jobs and presets, for those who may see them; not in the audit log, nor in logs."""
    canaries, admin = Canaries(), api.by(ada)

    def sent(path: str, body: Any = None, *, verb: str = "post", status: int = 201) -> Any:
        answer = getattr(admin, verb)(path, body)
        assert answer.status_code == status, answer.content
        return answer.json()

    def document(name: str, title: str, **parts: str) -> dict[str, Any]:
        made = {
            part: f"# {canaries.keep(f'{part} of {title}', f'canary{len(canaries.secrets):02d} in {part}')}\n{line}\n"
            for part, line in (("check", "return 1"), ("apply", 'printf "%s" "$WORD"'), ("verify", "true"))
        }
        variable = {"name": "WORD", "type": "string", "required": True, "help": "A word."}
        return {"name": name, "title": title, "description": "Says it.", "category": "other", "risk": "safe",
                "systems": [], "timeout_seconds": 60, "variables": [variable], **made, **parts}  # fmt: skip

    def values() -> dict[str, Any]:
        return {"variables": {"WORD": canaries.own(f"value {len(canaries.secrets)}")}}

    sent("/api/presets", document("own-preset", "the first"))
    sent("/api/presets/own-preset", document("own-preset", "the second"), verb="put", status=200)
    sent(
        "/api/presets",
        document("bad-preset", "a bad one", rollback=canaries.keep("no bash", "canary99 (((")),
        status=400,
    )
    sent("/api/presets/own-preset/duplicate", {"name": "another"})
    sent("/api/presets/own-preset/render", values(), status=200)
    job = sent("/api/jobs", {"preset": "own-preset", "node_id": "web-1", **values()})
    misspelt = {"variables": {"WORLD": canaries.own("a value of no variable")}}
    sent("/api/jobs", {"preset": "own-preset", "node_id": "web-1", **misspelt}, status=400)
    sent("/api/jobs/batches", {"preset": "own-preset", "node_ids": ["web-1"], **values()})
    sent("/api/drift/pins", {"preset": "own-preset", "node_id": "web-1", **values()})
    sent(f"/api/jobs/{job['id']}/cancel", status=200)
    sent(f"/api/jobs/{job['id']}/retry")
    client.force_login(ada)
    form = {"node": "web-1", "WORD": canaries.own("a value on a page")}
    assert client.post("/jobs/new/own-preset/confirm/", form).status_code == 200
    assert client.post("/jobs/new/own-preset/", form).status_code == 302
    sequencer.sequence()
    with connection.connection.cursor().copy("COPY (SELECT * FROM audit_event) TO STDOUT") as copy:
        entries = b"".join(bytes(block) for block in copy).decode()
    assert entries.count("job.queued") >= 4 and job["script_sha256"] in entries
    assert set(canaries.found_in(dump())) >= {
        "apply of the first",
        "apply of the second",
        "a value on a page",
    }  # they are kept, elsewhere
    assert canaries.found_in(entries) == []
    assert canaries.found_in(log.getvalue()) == []


def test_a_canary_would_be_found(db: None) -> None:
    """What looks for them sees through the forms that a column or a header gives them."""
    canaries = Canaries()
    secret = canaries.keep("one", "canary 01 of this test")
    assert canaries.found_in(f"x{secret}y") == ["one"]
    assert canaries.found_in(f"\\\\x00{secret.encode().hex()}00") == ["one"]
    for before in ("", "a", "ab", "abc"):
        assert canaries.found_in(base64.b64encode(f"{before}{secret} after".encode()).decode()) == ["one"], before
    with connection.cursor() as cursor:
        first_segment = wal_segment()
        cursor.execute("INSERT INTO audit_denial VALUES (%s, now(), 1, NULL, 0)", [secret])
    assert canaries.found_in(dump()) == ["one"]
    assert canaries.found_in(wal_since(first_segment)) == ["one"]
