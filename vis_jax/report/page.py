"""Self-contained HTML pages with inline styles, scripts and content.

Names of videos, classes and files are untrusted. They appear only as JSON in a data
block, which scripts show as text; the content security policy allows no script but
ours, by its hash.
"""

import base64
import hashlib
import html
import json
import os
from importlib import resources

from vis_jax.formats.disk import replacing

# In the order in which they are concatenated.
SCRIPTS = ("dom.js", "masks.js", "charts.js", "timeline.js", "viewer.js", "page.js")
STYLE = "page.css"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src '{style_hash}'; script-src '{script_hash}'; base-uri 'none'; \
form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page needs JavaScript; it loads nothing from a network.</noscript>
<main id="page"></main>
<script type="application/json" id="content">{content}</script>
<script>{script}</script>
</body>
</html>
"""


def render(content: dict) -> str:
    """Returns the page as HTML.

    Args:
      content: input of `assets/page.js`, with a `title`.

    Raises:
      ValueError: a number is not finite.
    """
    folder = resources.files("vis_jax.report") / "assets"
    style = (folder / STYLE).read_text("utf-8")
    parts = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    return _PAGE.format(
        title=html.escape(str(content["title"])),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        content=safe_json(content),
    )


def write_page(path: str | os.PathLike, content: dict) -> None:
    """Writes the page atomically.

    Args:
      path: path of the page; an existing file is replaced.
      content: as in `render`.

    Raises:
      OSError: the file cannot be written; names it.
    """
    page = render(content)
    with replacing(path) as file:
        file.write(page)


def safe_json(content: object) -> str:
    """Encodes JSON so that it cannot close its HTML element or open another."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":  # these occur only inside strings
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
