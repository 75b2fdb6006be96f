"""Lists take as many statements for a dozen rows as for two, and not one for the question who may see them."""

from __future__ import annotations

import pytest

from accounts.models import User
from bench import lists
from hyprbox.lib import actors
from hyprbox.lib.errors import Forbidden

# What each asks for; whoever raises one of these says why.
MOST = 16


@pytest.mark.slow
def test_no_list_asks_more_for_more_rows_or_for_permissions(ada: User) -> None:
    client = lists.client_of(ada)
    paths = (*lists.PAGES, *lists.CALLS)
    lists.fill(ada, range(2))
    short = {path: lists.queries(client, path) for path in paths}
    lists.fill(ada, range(2, 12))
    long = {path: lists.queries(client, path) for path in paths}
    assert long == short
    with lists.without_checks():
        assert {path: lists.queries(client, path) for path in paths} == long
    assert {path: count for path, count in long.items() if count > MOST} == {}


def test_without_checks_nobody_is_refused(vera: User) -> None:
    """The stub reaches every module that asks: else the comparison would compare nothing."""
    client = lists.client_of(vera)
    assert client.get("/api/tokens").status_code == client.get("/settings/people/").status_code == 403
    with lists.without_checks():
        assert client.get("/api/tokens").status_code == client.get("/settings/people/").status_code == 200
    with pytest.raises(Forbidden):
        actors.require(actors.Actor.agent(id="1", name="x"), actors.Capability.VIEW_FLEET)
