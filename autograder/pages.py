"""HTML pages that the grader writes: one look, and nothing in them that a student could have written as markup."""

import base64
import html
import io
import os
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; background: #f5f6f8; margin: 0 }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .4rem 0 } .quiet { color: #5b6472 }
table { border-collapse: collapse; width: 100%; background: #fff } caption { text-align: left; font-weight: 600 }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #dde1e7; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
section { background: #fff; border: 1px solid #dde1e7; border-radius: 6px; padding: .2rem 1rem .8rem; margin: 1rem 0 }
section h2 { margin-top: .8rem } figure { margin: 1rem 0; background: #fff } img { max-width: 100% }
pre { background: #f5f6f8; border-radius: 4px; padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap;
      overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; margin: .4rem 0 }
.badge { display: inline-block; border-radius: 1em; padding: 0 .6em; font-size: .85em; white-space: nowrap;
         background: #e4e7ec; color: #374151 }
.passed { background: #d3efdc; color: #14532d }
.failed, .error, .timeout, .memory, .died { background: #fbdcd9; color: #7f1d1d }
"""

# Nothing is loaded and nothing runs, whatever is in the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title, *parts):
    """A whole page. `title` is text; the parts are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n"
        "</main></body></html>\n"
    )


def text(value):
    """A value as text, safe in HTML."""
    return html.escape(str(value))


def badge(outcome):
    """An outcome as a coloured word."""
    return f'<span class="badge {text(outcome)}">{text(outcome)}</span>'


def points(score, max_score):
    """Points, e.g. `3 of 4`."""
    return f"{round(score, 2):g} of {round(max_score, 2):g}"


def block(value, limit=6000):
    """A longer text, as it stands, cut to `limit` characters."""
    value = str(value)
    cut = f"\n[{len(value) - limit:,} characters more]" if len(value) > limit else ""
    return f"<pre>{text(value[:limit] + cut)}</pre>"


def table(head, rows, numbers=()):
    """A table. Entries are HTML; the columns with an index in `numbers` are set as numbers."""

    def row(cells, tag):
        kinds = (' class="n"' if i in numbers else "" for i in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{k}>{c}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    return "<table>" + row(head, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


def picture(figure, alt):
    """A matplotlib figure, within the page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    data = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{text(alt)}" src="data:image/png;base64,{data}"></figure>'


def write_whole(path, content):
    """Writes a text file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(content, encoding="utf-8", errors="replace")
    os.replace(part, path)
