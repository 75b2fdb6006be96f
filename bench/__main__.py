"""`python -m bench [NAME ...] [--json] [--list]`: run the benchmarks, print their figures beside their bars."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from bench.harness import Context, Result, prepare
from hyprbox.lib.postgres import EmbeddedPostgres

_PREFIX = "bench_"
_HERE = Path(__file__).parent
# Durable, as in production; the rest is what anyone would give a database that is measured.
_POSTGRES = {"shared_buffers": "512MB", "max_connections": "300", "max_wal_size": "8GB"}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _names() -> list[str]:
    return sorted(path.stem.removeprefix(_PREFIX) for path in _HERE.glob(f"{_PREFIX}*.py"))


def _chosen(wanted: list[str]) -> list[str]:
    names = _names()
    if unknown := [name for name in wanted if name not in names]:
        sys.exit(f"script/bench: there is no {', '.join(unknown)}; there are: {', '.join(names)}")
    return wanted or names


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{_PREFIX}{name}")


def _run_all(names: list[str], context: Context) -> tuple[list[Result], bool]:
    """All results, and whether every benchmark ran to its end."""
    results, all_ran = [], True
    for name in names:
        started = time.monotonic()
        _say(f"--- {name}")
        try:
            results += _module(name).run(context)
        except Exception:  # noqa: BLE001 - one that breaks must not hide the figures of the others
            traceback.print_exc()
            all_ran = False
        _say(f"    {time.monotonic() - started:.0f} s")
    return results, all_ran


def _print_table(results: list[Result]) -> None:
    table = Table("figure", "value", "unit", "bar", "met")
    for result in results:
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[result.met]
        table.add_row(result.name, f"{result.value:,.4g}", result.unit, result.bar_text, met)
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/bench", description="Measure the bars.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(_names())}; all without one")
    parser.add_argument("--json", action="store_true", help="a list of {name, value, unit, bar, met}")
    parser.add_argument("--list", action="store_true", help="only the names")
    options = parser.parse_args()
    if options.list:
        print("\n".join(_names()))
        return 0
    names = _chosen(options.names)
    with tempfile.TemporaryDirectory(prefix="hyprbox-bench-") as folder:
        prepare(Path(folder))
        postgres = EmbeddedPostgres(Path(folder), settings=_POSTGRES)
        try:
            postgres.start()
            results, all_ran = _run_all(names, Context(postgres, Path(folder), _say))
        finally:
            postgres.destroy()
    if options.json:
        print(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        _print_table(results)
    return 0 if all_ran and all(result.met is not False for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
