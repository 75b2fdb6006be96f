"""A heartbeat on the wire: its shape, its limits, and what is wrong with one that breaks them.

Pure. Strict: unknown keys, numbers out of range or not finite, NUL and broken UTF-8 are refused, and nesting
cannot be deeper than these types are.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from hyprbox.lib.errors import HyprBoxError, InvalidInput, MalformedBody
from nodes import names
from nodes.errors import InventoryTooLarge

MAX_BODY_BYTES = 1024 * 1024
MAX_INVENTORY_BYTES = 256 * 1024

Percent = Annotated[float, Meta(ge=0, le=100)]
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Name = Annotated[str, Meta(max_length=255)]
Label = Annotated[str, Meta(max_length=63)]


class Disk(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    mount: Annotated[str, Meta(min_length=1, max_length=255)]
    percent: Percent | None
    total_bytes: Count | None = None


class Metrics(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """Null is a figure that the agent could not read."""

    cpu_percent: Percent | None
    memory_percent: Percent | None
    disk_percent: Percent | None
    load_1: Amount | None = None
    load_5: Amount | None = None
    load_15: Amount | None = None
    swap_percent: Percent | None = None
    memory_total_bytes: Count | None = None
    disk_total_bytes: Count | None = None
    net_rx_bps: Amount | None = None
    net_tx_bps: Amount | None = None
    disk_read_bps: Amount | None = None
    disk_write_bps: Amount | None = None
    processes: Count | None = None
    uptime_seconds: Amount | None = None
    disks: Annotated[list[Disk], Meta(max_length=256)] | None = None
    spool_unwritable: Annotated[str, Meta(min_length=1, max_length=255)] | None = None  # why it takes no jobs
    failed_units: Count | Annotated[list[Name], Meta(max_length=256)] | None = None


class Inventory(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    hostname: Name | None = None
    os: Name | None = None
    os_version: Name | None = None
    kernel: Name | None = None
    architecture: Name | None = None
    ip_addresses: Annotated[list[Label], Meta(max_length=1024)] | None = None
    region: Label | None = None
    cpu_count: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    virtualization: Name | None = None
    boot_time: Annotated[datetime, Meta(tz=True)] | None = None
    agent_version: Name | None = None


class Checkpoint(Struct, gc=False, forbid_unknown_fields=True):
    """A checkpoint of the audit log, as heartbeats' answers hand it out."""

    n: Count
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    at: Annotated[str, Meta(max_length=40)]
    key_id: Label
    signature: Annotated[str, Meta(max_length=200)]


class AuditFork(Struct, gc=False, forbid_unknown_fields=True):
    """Two checkpoints of one entry that contradict each other: what the agent keeps, and what it was handed later."""

    kept: Checkpoint
    refused: Checkpoint


class Heartbeat(Struct, gc=False, forbid_unknown_fields=True):
    node_id: Annotated[str, Meta(pattern=names.PATTERN)]
    agent_version: Annotated[str, Meta(min_length=1, max_length=40)]
    interval_seconds: Annotated[int, Meta(ge=1, le=86_400)]
    metrics: Metrics
    inventory: Raw | UnsetType = UNSET
    sent_at: Annotated[datetime, Meta(tz=True)] | None = None
    machine_id: Annotated[str, Meta(max_length=64)] | None = None
    instance_id: Annotated[str, Meta(max_length=64)] | None = None
    beat: Annotated[int, Meta(ge=0, le=2**62)] | None = None
    audit_fork: AuditFork | None = None


_heartbeat = msgspec.json.Decoder(Heartbeat).decode
_inventory = msgspec.json.Decoder(Inventory | None).decode
_AT = re.compile(r"^(?P<sentence>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_QUOTED = re.compile(r"`([^`]*)`")


def decode(body: bytes) -> tuple[Heartbeat, Inventory | None]:
    """Raises `MalformedBody` for what is no JSON, `InvalidInput` naming the field, `InventoryTooLarge`."""
    try:
        beat = _heartbeat(body)
        inventory = None if beat.inventory is UNSET else _decode_inventory(beat.inventory)
    except msgspec.ValidationError as error:
        raise _named(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not valid JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise MalformedBody("The JSON is nested too deeply.") from None
    if b"\\u0000" in body and _has_nul(msgspec.json.decode(body)):
        raise MalformedBody("The JSON contains a NUL character, which no field takes.")
    return beat, inventory


def _decode_inventory(raw: Raw) -> Inventory | None:
    part = bytes(raw)
    if len(part) > MAX_INVENTORY_BYTES:
        raise InventoryTooLarge(detail={"limit_bytes": MAX_INVENTORY_BYTES})
    try:
        return _inventory(part)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise _named(error, "inventory") from None


def _named(error: msgspec.ValidationError, parent: str = "") -> HyprBoxError:
    """msgspec's sentence as `{"metrics.cpu_percent": ["Expected `float` <= 100.0."]}`."""
    match = _AT.match(str(error))
    sentence, path = (match["sentence"], match["path"] or "") if match else (str(error), "")
    if sentence.startswith("Object contains unknown field"):
        key, sentence = _QUOTED.findall(sentence)[0], "Unknown field."
    elif sentence.startswith("Object missing required field"):
        key, sentence = _QUOTED.findall(sentence)[0], "This field is required."
    else:
        key = ""
    field = ".".join(part for part in (parent, path, key) if part) or "body"
    return InvalidInput(fields={field[:120]: [sentence[:200]]})


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
