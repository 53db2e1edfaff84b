"""Reports as tests read them."""

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


class Page(HTMLParser):
    """Collects what a page holds, and checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.heads: list[int] = []
        self.columns: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.columns.append(0)
        if tag in ("th", "td"):
            self.columns[-1] += 1
        if tag == "script":
            self.scripts.append("")
        if tag == "table":
            self.heads.append(len(self.columns))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text += data

    def check_self_contained(self) -> None:
        """Nothing is loaded from anywhere, and links lead to files beside the page."""
        loads = [(tag, value) for tag, name, value in self.attributes if name in ("src", "href", "srcset", "action")]
        assert all(tag == "a" and value.startswith("./") for tag, value in loads)
        policy = next(value for _, name, value in self.attributes if name == "content" and "default-src" in value)
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy

    def check_tables(self) -> None:
        """Every row of a table has as many cells as its head."""
        ends = [*self.heads[1:], len(self.columns)]
        for start, end in zip(self.heads, ends, strict=True):
            assert end - start >= 2
            assert len(set(self.columns[start:end])) == 1
