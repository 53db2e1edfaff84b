"""Lists in pages: bodies are plain lists, and the header ``Link`` leads from each page to the next."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response

from autoprune.service.rest.dependencies import documented

Item = TypeVar("Item")

#: How a route that answers with a page is described.
PAGED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": '`<...>; rel="next"`: the next page. Missing on the last one.',
                "schema": {"type": "string"},
            }
        }
    },
    **documented(422),
}


class Page:
    """The part of a list that a request asks for; it says in the response where the next part is.

    Pages begin behind an item, not at a number of items: what is added meanwhile neither repeats nor hides anything.

    Attributes:
        after: Identifier of the item behind which the page begins; None for the first page.
        needed: How many items the caller should provide, if there are so many: one more than the page has.

    """

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000, description="Most items of a page.")] = 100,
        after: Annotated[
            str | None, Query(max_length=200, description="The last item of the page before, as in its `Link` header.")
        ] = None,
    ) -> None:
        """Read the page from a request; FastAPI fills in the rest."""
        self._request, self._response, self._limit = request, response, limit
        self.after = after
        self.needed = limit + 1

    def of(self, items: Sequence[Item], name_of: Callable[[Item], str]) -> Sequence[Item]:
        """Return the page that `items`, which lie behind `after`, begin with; `name_of` gives what `after` may be."""
        page = items[: self._limit]
        if len(items) > len(page):
            url = self._request.url.include_query_params(after=name_of(page[-1]))
            self._response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return page

    def of_sorted(self, names: Sequence[str]) -> Sequence[str]:
        """Return the page of all `names`, which are sorted and are their own identifiers."""
        return self.of([name for name in names if self.after is None or name > self.after], str)


ThePage = Annotated[Page, Depends()]
