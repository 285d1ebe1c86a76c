"""What a page may not hold under our strict policy."""

from html.parser import HTMLParser


class _Inline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        is_data = given.get("type") == "application/json"  # which no browser runs
        if tag == "style" or (tag == "script" and "src" not in given and not is_data):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name == "style" or name.startswith("on") or (value or "").strip().startswith("javascript:"):
                self.found.append(f'{tag} {name}="{value}"')
            if name in ("src", "action") and "//" in (value or "") and not value.startswith("data:"):
                self.found.append(f"{tag} from elsewhere: {value}")


def inline_parts(html: str) -> list[str]:
    """Scripts and styles inside the page, and what it would load from elsewhere."""
    parser = _Inline()
    parser.feed(html)
    return parser.found
