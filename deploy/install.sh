#!/usr/bin/env bash
# Puts HyprBox's agent on this server, or brings it up to date; --uninstall removes it. The control plane serves this
# file at /install.sh with its address and hashes filled in; its token page shows the command that runs it.
#
#   HYPRBOX_NODE_TOKEN     the node's token (an upgrade takes the one that is here)
#   HYPRBOX_AGENT_SHA256   the hash that the agent's file must have
#   HYPRBOX_KEYS_SHA256    the hash of the keys that jobs must be signed with
# and the agent's other settings (docs/install/agent.md). Nothing is changed before all of it was found to be good.
set -euo pipefail

served_url=
served_agent_sha256=
served_keys_sha256=

fail() { echo "install.sh: $*" >&2; exit 1; }

# Not as arguments of sudo: those are seen by everyone and logged.
settings() {
  local name
  for name in ${!HYPRBOX_@} https_proxy HTTPS_PROXY http_proxy HTTP_PROXY no_proxy NO_PROXY; do
    if [ -n "${!name:-}" ]; then printf '%s=%s\n' "$name" "${!name}"; fi
  done
}

take_settings() {
  local line
  while IFS= read -r line; do
    case "$line" in
      HYPRBOX_[A-Z_0-9]*=* | [Hh][Tt][Tt][Pp]*_[Pp][Rr][Oo][Xx][Yy]=* | [Nn][Oo]_[Pp][Rr][Oo][Xx][Yy]=*) export "${line?}" ;;
    esac
  done
}

find_python() { # sets $python
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
    python=$(command -v "$name") || continue
    if "$python" -I -c 'import ssl, sys, zipfile; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      return
    fi
  done
  fail "Python 3.9 to 3.14 is needed and not here; on Debian and Ubuntu: apt-get install python3."
}

fetch() { # URL FILE SHA256
  "$python" -I - "$@" <<'PYTHON' || exit 1
import hashlib, sys, urllib.error, urllib.parse, urllib.request
url, path, wanted = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
proxy = urllib.request.getproxies().get(parts.scheme, "")
if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
    way = ""
else:  # its password is nobody's business
    way = " through the proxy " + proxy.split("://")[-1].rpartition("@")[2].rstrip("/")
try:
    with urllib.request.urlopen(url, timeout=60) as answer:
        data = answer.read()
except urllib.error.HTTPError as error:
    sys.exit(f"install.sh: {url} answers {error.code}{way}: has the agent been built there (script/build-agent)?")
except (OSError, ValueError) as error:
    why = getattr(error, "reason", error)
    sys.exit(f"install.sh: {url} cannot be fetched{way}: {getattr(why, 'strerror', None) or why}.")
found = hashlib.sha256(data).hexdigest()
if found != wanted:
    sys.exit(f"install.sh: the agent's file has the SHA-256 {found} and not {wanted} as this command says: it has "
             "changed since. Create a new token for a new command.")
with open(path, "wb") as file:
    file.write(data)
PYTHON
}

uninstall() {
  [ -x /opt/hyprnode/bin/hyprnode ] || fail "HyprBox's agent is not installed here."
  exec /opt/hyprnode/bin/hyprnode uninstall "$@"
}

install() {
  local sha256=${HYPRBOX_AGENT_SHA256:-$served_agent_sha256} python work code=0
  export HYPRBOX_API_URL=${HYPRBOX_API_URL:-$served_url}
  [ "$(uname -s)" = Linux ] || fail "the agent runs on Linux; this is $(uname -s)."
  case $(uname -m) in x86_64 | aarch64) ;; *) fail "the agent runs on x86_64 and aarch64; this is $(uname -m)." ;; esac
  [ -n "$HYPRBOX_API_URL" ] || fail "HYPRBOX_API_URL is not set: the control plane's address, such as https://hyprbox.example."
  [ -n "$sha256" ] || fail "the control plane has not built the agent's file yet: script/build-agent does, there."
  if [ -z "${HYPRBOX_NODE_TOKEN:-}${HYPRBOX_NODE_TOKEN_FILE:-}" ] && ! [ -s /etc/hyprbox/hyprnode.env ]; then
    fail "HYPRBOX_NODE_TOKEN is not set: create a token on the control plane."
  fi
  # An upgrade keeps the hash that the server was told: the keys may have been rotated since.
  if [ -n "${HYPRBOX_NODE_TOKEN:-}" ]; then export HYPRBOX_KEYS_SHA256=${HYPRBOX_KEYS_SHA256:-$served_keys_sha256}; fi
  # sudo may have taken the proxy out of the environment: an upgrade uses the one that the agent was told.
  if [ -z "${https_proxy:-}${HTTPS_PROXY:-}" ]; then
    https_proxy=${HYPRBOX_PROXY:-$(sed -n 's/^HYPRBOX_PROXY=//p' /etc/hyprbox/hyprnode.env 2>/dev/null || true)}
    export https_proxy
  fi
  find_python
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # where it is now
  trap "rm -rf '$work'" EXIT
  fetch "${HYPRBOX_API_URL%/}/agent/hyprnode.pyz" "$work/hyprnode.pyz" "$sha256"
  SHIV_ROOT=$work/unpacked "$python" -I "$work/hyprnode.pyz" install || code=$?
  exit "$code"
}

main() {
  local action=install
  local -a extra=()
  for argument in "$@"; do
    case "$argument" in
      --settings-on-stdin) take_settings ;;
      --uninstall) action=uninstall ;;
      --force) extra+=(--force) ;;
      *) fail "unknown option $argument (there are --uninstall and --force)." ;;
    esac
  done
  if [ "$(id -u)" != 0 ]; then
    if ! [ -f "$0" ] || ! command -v sudo >/dev/null; then fail "this changes the system: run it as root."; fi
    settings | sudo bash "$0" --settings-on-stdin "$@"
    exit
  fi
  "$action" "${extra[@]}"
}

# At the end, so that half of this file does nothing.
main "$@"
