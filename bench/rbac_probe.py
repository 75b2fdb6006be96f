"""Run by `bench_rbac` in a process of its own. Prints the statements of each list as JSON."""

from __future__ import annotations

import json

import django

django.setup()


from accounts import people
from bench import lists
from hyprbox.lib.actors import Actor, Role


def main() -> None:
    system = Actor.system("bench")
    admin = people.create_user(by=system, email="ada@example.com", password=lists.PASSWORD, role=Role.ADMIN)
    client = lists.client_of(admin)
    paths = (*lists.PAGES, *lists.CALLS)
    lists.fill(admin, range(2))
    found = {path: {"short": lists.queries(client, path)} for path in paths}
    lists.fill(admin, range(2, 20))
    for path, one in found.items():
        one["checked"] = lists.queries(client, path)
        with lists.without_checks():
            one["unchecked"] = lists.queries(client, path)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
