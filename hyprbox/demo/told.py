"""What the demo's jobs wrote: a few lines for each preset, with the numbers of the server it ran on."""

from __future__ import annotations

from hyprbox.demo.fleet import Host


def written(preset: str, host: Host, *, already: bool) -> list[tuple[str, str]]:
    """(phase, text) as a script would have written it to standard output."""
    make = _WRITERS.get(preset)
    return make(host, already) if make else _anything(preset, host, already)


def _anything(preset: str, host: Host, already: bool) -> list[tuple[str, str]]:
    return [
        ("check", "It is so already.\n" if already else "It is not so yet.\n"),
        ("apply", f"{host.node_id} is made up, so {preset} changes nothing here.\n"),
        ("verify", "It is so now.\n"),
    ]


def _report(host: Host, already: bool) -> list[tuple[str, str]]:
    mark = "  <-- full" if host.disk >= 85 else ""
    return [
        (
            "apply",
            f"\n== System ==\nhost           {host.node_id}\ncpus           {host.cpus}\nvirtualization kvm\n"
            f"\n== Load ==\n1 minute       {host.cpu * host.cpus / 100:.2f}\nmemory used    {host.memory:.0f} %\n"
            f"\n== Disks ==\n/              {host.disk:.0f} % of {host.cpus * 40} GiB{mark}\n"
            f"\n== Services ==\nfailed units   none\n"
            f"\n== Listening ==\ntcp 22         sshd\n"
            + ("tcp 443        nginx\n" if {"web", "edge", "nginx"} & set(host.tags) else "")
            + ("tcp 5432       postgres\n" if "postgres" in host.tags else "")
            + "\n== Updates ==\nwaiting        7 packages, 2 of them for security\n",
        )
    ]


def _update(host: Host, already: bool) -> list[tuple[str, str]]:
    if already:
        return [("check", "Package lists are 2 hours old.\nNothing to upgrade.\n")]
    names = ("libssl3", "openssl", "curl", "libcurl4", "linux-image-amd64", "tzdata", "sudo")
    lines = "".join(f"Setting up {name} ...\n" for name in names)
    return [
        ("check", "Package lists are 9 hours old: fetching.\n7 packages can be upgraded.\n"),
        ("apply", f"Reading package lists...\nThe following packages will be upgraded:\n  {' '.join(names)}\n{lines}"),
        ("verify", "Nothing is left to upgrade.\n"),
    ]


def _swap(host: Host, already: bool) -> list[tuple[str, str]]:
    if already:
        return [("check", "/swapfile is in use, 2048 MiB.\n")]
    return [
        ("check", "No swap file at /swapfile.\n"),
        ("apply", "Setting up swapspace version 1, size = 2 GiB (2147479552 bytes)\nAdded to /etc/fstab.\n"),
        ("verify", "/swapfile  file  2G  0B  -2\n"),
    ]


def _journal(host: Host, already: bool) -> list[tuple[str, str]]:
    if already:
        return [("check", "journald is limited to 500M and 30d.\n")]
    return [
        ("check", "journald has no limit of its own.\n"),
        ("apply", "Wrote the drop-in.\nVacuuming done, freed 1.2G of archived journals.\n"),
        ("verify", "Archived and active journals take up 412.0M.\n"),
    ]


def _time(host: Host, already: bool) -> list[tuple[str, str]]:
    if already:
        return [("check", "UTC, synchronised.\n")]
    return [
        ("check", "The clock is not synchronised.\n"),
        ("apply", "systemd-timesyncd enabled.\n"),
        ("verify", "Synchronised, offset +0.004 s.\n"),
    ]


def _site(host: Host, already: bool) -> list[tuple[str, str]]:
    return [
        ("check", "There is no such site yet.\n"),
        (
            "apply",
            "Wrote the site.\nnginx: configuration file /etc/nginx/nginx.conf test is successful\nReloaded nginx.\n",
        ),
        ("verify", "It answers 200.\n"),
    ]


_WRITERS = {
    "system-report": _report,
    "system-update": _update,
    "swap-file": _swap,
    "journald-limit": _journal,
    "time-sync": _time,
    "nginx-static-site": _site,
}
