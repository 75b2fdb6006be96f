"""Pages of lists that may be very long: what they show costs what it is, however many rows there are."""

from __future__ import annotations

from typing import Any

from django.core.paginator import EmptyPage, Page, PageNotAnInteger, Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

MOST_COUNTED = 10_000
MOST_PAGES = 1_000_000


class LongPage(Page):  # type: ignore[type-arg]
    """One of a list that was not counted to its end."""

    def __init__(self, rows: Any, number: int, paginator: LongPaginator, *, is_last: bool) -> None:
        super().__init__(rows, number, paginator)
        self._is_last = is_last

    def has_next(self) -> bool:
        return not self._is_last

    def next_page_number(self) -> int:
        return int(self.number) + 1

    def previous_page_number(self) -> int:
        return int(self.number) - 1

    def end_index(self) -> int:
        return int(self.start_index()) + len(self.object_list) - 1


class LongPaginator(Paginator):  # type: ignore[type-arg]
    """Counts to `MOST_COUNTED` and one more, which stands for all that come after; pages go on to the last row."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        return int(rows.order_by()[: MOST_COUNTED + 1].count())

    @property
    def is_more(self) -> bool:
        """Whether there are more than were counted."""
        return self.count > MOST_COUNTED

    @property
    def counted(self) -> int:
        return min(self.count, MOST_COUNTED)

    def validate_number(self, number: Any) -> int:
        """A page that begins behind what was counted may be there; whether it is its rows say."""
        try:
            return int(super().validate_number(number))
        except EmptyPage:
            if not 1 <= int(number) <= MOST_PAGES or not self.is_more:
                raise
            return int(number)

    def get_page(self, number: Any) -> Page[Any]:
        """The nearest one that is there."""
        try:
            return self.page(number)
        except PageNotAnInteger:
            return self.page(1)
        except EmptyPage:
            return self.page(self.num_pages)

    def page(self, number: Any) -> Page[Any]:
        """Raises `PageNotAnInteger`, `EmptyPage`."""
        number = self.validate_number(number)
        if not self.is_more:
            return super().page(number)
        first = (number - 1) * self.per_page
        if first > MOST_COUNTED and not self._has(first):
            raise EmptyPage("There is no such page.")
        end = first + self.per_page
        is_last = end > MOST_COUNTED and not self._has(end)
        return LongPage(self.object_list[first:end], number, self, is_last=is_last)

    def _has(self, index: int) -> bool:
        """Whether there is a row behind so many others."""
        rows: Any = self.object_list
        return bool(rows[index : index + 1])
