"""The style, tables and templates that the server's report and a client's page share.

Templates are Python strings because Flower's app bundles carry only code and configuration.
"""

import base64
from collections.abc import Mapping

import jinja2
from markupsafe import Markup

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #545d6d; --line: #dfe3ea; --paper: #ffffff; --panel: #f5f7fa;
  --accent: #2563c9; --good: #1f7a4d; --bad: #b23b3b; --wash: #e8f0fd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ee; --soft: #a3adbd; --line: #313744; --paper: #14171d;
  --panel: #1c2028; --accent: #7fb0ff; --good: #62c796; --bad: #f09a9a; --wash: #1d2a41; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1rem; letter-spacing: .04em; color: var(--soft); font-weight: 600; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; }
a { color: var(--accent); }
.headline { font-size: 1.45rem; line-height: 1.35; font-weight: 600; text-wrap: balance; margin: 0 0 .8rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--panel); border-radius: .6rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow: auto; max-height: 36rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; padding: 0 0 .3rem; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
tbody th { font-weight: 400; font-size: 1rem; color: var(--ink); }
th:first-child, td:first-child, .text { text-align: left; }
td.wrap { white-space: normal; }
tr.ours th, tr.ours td { background: var(--wash); }
td.best { color: var(--good); font-weight: 700; }
td.up { color: var(--good); } td.down { color: var(--bad); }
tr.ours td.shade, td.shade { background: color-mix(in srgb, var(--accent) calc(var(--v) * 45%), transparent); }
table.tight { width: auto; } .tight th, .tight td { padding: .25rem .5rem; text-align: center; }
.tight th:first-child { text-align: left; }
td.bar { width: 40%; min-width: 8rem; text-align: left; }
.bar i { display: inline-block; height: .8rem; width: calc(var(--v) * (100% - 3.4rem)); min-width: 1px;
  background: var(--accent); border-radius: .2rem; vertical-align: middle; margin-right: .5rem; }
details { background: var(--panel); border-radius: .6rem; padding: .6rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
li { margin: .3rem 0; }
figure { margin: .8rem 0; }
img { display: block; max-width: 100%; height: auto; }
"""

MACROS = """
{% macro scroll(label) %}
<div class="scroll" role="region" tabindex="0" aria-label="{{ label }}">{{ caller() }}</div>
{% endmacro %}

{% macro shade(value) %}
<td class="shade" style="--v: {{ "%.3f" | format(value or 0) }}">{{ value | percent }}</td>
{% endmacro %}

{% macro bar(value) %}
<td class="bar"><i style="--v: {{ "%.3f" | format(value or 0) }}"></i>{{ value | percent }}</td>
{% endmacro %}

{% macro confusion(rows, columns, counts) %}
{% call scroll("Confusion: rows are true classes, columns what the model said") %}<table class="tight">
<caption>Number of test images; row: what it is, column: what the model said.</caption>
<thead><tr><th scope="col">class</th>{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name in rows %}
{% set total = counts[loop.index0] | sum %}
<tr><th scope="row">{{ name }}</th>{% for count in counts[loop.index0] %}
<td class="shade" style="--v: {{ "%.3f" | format(count / total if total else 0) }}">{{ count or "" }}</td>{% endfor %}
</tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endmacro %}
"""


def format_percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as percent, 0.8123 -> `81.2`; a dash if it was not measured."""
    return "\N{EN DASH}" if accuracy is None else f"{100 * accuracy:.1f}"


def make_environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """A jinja2 environment for `templates` (name -> source) that escapes all text.

    Templates get the shared tables by `{% import "macros" as tables %}` and the shared style by `{{ style }}`.
    """
    made = jinja2.Environment(
        loader=jinja2.DictLoader({"macros": MACROS, **templates}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": format_percent, "data_uri": _data_uri}
    made.globals["style"] = Markup(STYLE)
    return made


def find_mistakes(
    rows: list[str], columns: list[str], counts: list[list[int]], correct: list[int], most: int
) -> list[tuple[str, str, float]]:
    """The `most` most frequent confusions: (true class, predicted class, share of the true class's images in [0, 1]).

    rows, columns: the true and the predicted classes of `counts`.
    correct: for each row, the index of the right column.
    """
    found = [
        (rows[i], columns[j], count / sum(line))
        for i, line in enumerate(counts)
        for j, count in enumerate(line)
        if count and j != correct[i]
    ]
    return sorted(found, key=lambda each: -each[2])[:most]


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
