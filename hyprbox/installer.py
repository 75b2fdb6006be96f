"""What a new server downloads: /install.sh and the agent's file, and the one command that verifies both."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.views.decorators.http import require_safe

from hyprbox.lib import signing
from hyprbox.lib.errors import NotFound, Unavailable
from hyprbox.management import agent_file

SCRIPT = settings.BASE_DIR / "deploy" / "install.sh"
NOT_BUILT = (
    "The agent's file has not been built here yet. script/server does it in the background within a minute or two; "
    "elsewhere run script/build-agent. Then create another token: its command installs the agent, too."
)


@lru_cache(maxsize=2)
def _agent(mtime_ns: int, size: int) -> tuple[bytes, str]:
    """The file's bytes and hash, read once for each build."""
    data = agent_file.PATH.read_bytes()
    return data, hashlib.sha256(data).hexdigest()


def agent() -> tuple[bytes, str]:
    """The agent's file and its SHA-256. Raises `NotFound` while there is none."""
    try:
        facts = agent_file.PATH.stat()
        return _agent(facts.st_mtime_ns, facts.st_size)
    except OSError:
        raise NotFound(NOT_BUILT) from None


def agent_sha256() -> str:
    """Of the agent's file; empty while there is none."""
    try:
        return agent()[1]
    except NotFound:
        return ""


def script() -> bytes:
    """install.sh for this control plane: its address and its hashes are in it."""
    text = SCRIPT.read_text()
    served = {
        "served_url": settings.HYPRBOX_PUBLIC_URL,
        "served_agent_sha256": agent_sha256(),
        "served_keys_sha256": signing.key_set_sha256(),
    }
    for name, value in served.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={shlex.quote(value)}\n", 1)
    return text.encode()


@dataclass(frozen=True, slots=True)
class Command:
    """One line for a shell on the new server. The token is in the environment, never in arguments that others see."""

    token: str
    node_id: str

    @property
    def settings(self) -> str:
        parts = {"HYPRBOX_NODE_TOKEN": self.token, "HYPRBOX_KEYS_SHA256": signing.key_set_sha256()}
        if self.node_id:
            parts["HYPRBOX_NODE_ID"] = self.node_id
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in parts.items())

    def __str__(self) -> str:
        """Fetches install.sh, runs it only when it has the hash, and install.sh asks for root by itself.

        Until the agent's file is built: how an agent that is on the server already is started.
        """
        url = shlex.quote(settings.HYPRBOX_PUBLIC_URL)
        if not (agent_hash := agent_sha256()):
            return f"sudo env HYPRBOX_API_URL={url} {self.settings} hyprnode"
        script_hash = hashlib.sha256(script()).hexdigest()
        address = shlex.quote(f"{settings.HYPRBOX_PUBLIC_URL}/install.sh")
        return (
            f"""(f=$(mktemp); trap 'rm -f "$f"' EXIT; """
            f'if command -v curl >/dev/null; then curl -fsSL {address}; else wget -nv -O- {address}; fi >"$f" || exit; '
            f'[ "$(sha256sum <"$f" | cut -c1-64)" = {script_hash} ] || {{ '
            f"echo 'install.sh has changed since this command was made: create a new token.' >&2; exit 1; }}; "
            f'{self.settings} HYPRBOX_AGENT_SHA256={agent_hash} bash "$f")'
        )


@require_safe
def install_sh(request: HttpRequest) -> HttpResponse:
    try:
        body = script()
    except signing.SigningKeyUnusable as error:
        raise Unavailable("The signing key cannot be used right now.") from error
    return HttpResponse(body, content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})


@require_safe
def agent_pyz(request: HttpRequest) -> HttpResponse:
    """The agent's file; whoever has it already is told so by its hash."""
    data, sha256 = agent()
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "no-cache", "X-Content-SHA256": sha256}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(data, content_type="application/octet-stream", headers=headers)
