"""Check a built site: every link and anchor leads somewhere, and no page loads anything from another server."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
"""Attributes that a browser fetches by itself, by tag."""


class Page(HTMLParser):
    """Collects what a page links to, what it loads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and the anchor of a tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given[LOADED[tag]])


def problems(folder: Path) -> list[str]:
    """Return a line for each dead link and each request to another server.

    Args:
        folder: that holds the HTML files.
    """
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for address in (*page.links, *page.loads):
            if complaint := _complaint(path, address, pages, is_loaded=address in page.loads):
                found.append(f"{path.relative_to(folder.resolve())}: {complaint}: {address}")
    for style in folder.rglob("*.css"):
        text = style.read_text(encoding="utf-8", errors="ignore")
        if "url(http" in text or "url(//" in text or '@import "http' in text:
            found.append(f"{style.relative_to(folder)}: loads something from another server")
    return sorted(set(found))


def _complaint(path: Path, address: str, pages: dict[Path, Page], is_loaded: bool) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        if is_loaded:
            return "loads something from another server"
        is_whole = parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)
        return "" if is_whole else "is no address"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return "leads nowhere"
    anchor = unquote(parts.fragment)
    return "has no such anchor" if anchor and target in pages and anchor not in pages[target].anchors else ""


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    print("\n".join(lines))
    sys.exit(bool(lines))
