"""The page's jinja2 template, a Python string because Flower's app bundles carry only code and configuration."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6474; --line: #dfe3ea; --paper: #ffffff; --panel: #f5f7fa;
  --accent: #2563c9; --good: #1f7a4d; --bad: #b23b3b; --wash: #e8f0fd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ee; --soft: #9aa4b5; --line: #313744; --paper: #14171d;
  --panel: #1c2028; --accent: #7fb0ff; --good: #62c796; --bad: #ef8a8a; --wash: #1d2a41; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1rem; letter-spacing: .04em; color: var(--soft); font-weight: 600; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; }
.headline { font-size: 1.45rem; line-height: 1.35; font-weight: 600; text-wrap: balance; margin: 0 0 .8rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--panel); border-radius: .6rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
th:first-child, td:first-child, .text { text-align: left; }
td.wrap { white-space: normal; }
tr.ours td { background: var(--wash); }
td.best { color: var(--good); font-weight: 700; }
td.up { color: var(--good); } td.down { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .5rem 1.5rem; }
figure { margin: .8rem 0; }
img { display: block; max-width: 100%; height: auto; }
.montage { min-width: calc(var(--columns) * 2.1rem); max-width: calc(var(--columns) * 4rem); }
.montage img { width: 100%; image-rendering: pixelated; border-radius: .3rem; background: var(--panel); }
.labels { display: grid; grid-template-columns: repeat(var(--columns), 1fr); font-size: .75rem; color: var(--soft); }
.labels span { text-align: center; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
details { background: var(--panel); border-radius: .6rem; padding: .6rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
li { margin: .3rem 0; }
"""

PAGE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FedLMG report</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>
{% macro cell(accuracy, highest, ranked) %}
{% set first = ranked and accuracy is not none and accuracy == highest %}
<td{% if first %} class="best"{% endif %}>{{ accuracy | percent }}</td>
{% endmacro %}
{% set clients = results.clients %}
{% set synthesis = results.synthesis %}
<header>
<h1>FedLMG report</h1>
<p class="headline">{{ headline }}</p>
<p class="soft">Aggregated model: {{ results.aggregated.architecture }}, by {{ results.aggregated.aggregation }};
seed {{ results.seed }}.</p>
<div class="tiles">
<div class="tile"><b>{{ results.aggregated.accuracy | percent }} %</b><span class="soft">aggregated model</span></div>
<div class="tile"><b>{{ clients | length }}</b><span class="soft">clients in the model</span></div>
<div class="tile"><b>{{ synthesis.num_images }}</b><span class="soft">synthetic images</span></div>
<div class="tile"><b>{{ "%.1f" | format(results.stages.values() | sum / 60) }} min</b>
<span class="soft">all stages</span></div>
</div>
</header>

<main>
<h2>Clients</h2>
<p class="soft">Accuracy in percent. The difference, in points, is the aggregated model against the client's own, both
on the client's own test images.</p>
<div class="scroll"><table>
<thead><tr><th>client</th><th>own</th><th>aggregated</th><th>difference</th><th>own, on all clients</th>
<th class="text">own model</th><th>training images</th><th>upload, MB</th></tr></thead>
<tbody>
{% for name, client in clients.items() %}
{% set change = points(client.aggregated_accuracy, client.own_accuracy) %}
<tr><td>{{ name }}</td><td>{{ client.own_accuracy | percent }}</td>
<td><b>{{ client.aggregated_accuracy | percent }}</b></td>
<td class="{{ {"+": "up", "\N{MINUS SIGN}": "down"}.get(change[0], "") }}">{{ change }}</td>
<td>{{ client.own_accuracy_all_clients | percent }}</td><td class="text">{{ client.architecture }}</td>
<td>{{ client.num_examples }}</td><td>{{ "%.1f" | format(client.upload_bytes / 1e6) }}</td></tr>
{% endfor %}
</tbody></table></div>

{% if clients.values() | selectattr("weight_reason") | list %}
<h2>Weak teachers</h2>
<p class="soft">Quality: 0 is chance, 1 is perfect. At weight 0 a client's images and targets are left out of the
student's training.</p>
<div class="scroll"><table>
<thead><tr><th>client</th><th>quality</th><th>weight</th><th class="text">why</th></tr></thead>
<tbody>
{% for name, client in clients.items() if client.weight_reason %}
<tr><td>{{ name }}</td><td>{{ "%.2f" | format(client.quality) }}</td><td>{{ "%.2f" | format(client.weight) }}</td>
<td class="text wrap">{{ client.weight_reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if missing %}
<h2>Not in the model</h2>
<div class="scroll"><table>
<thead><tr><th>client</th><th class="text">why</th></tr></thead>
<tbody>
{% for name, reason in missing.items() %}
<tr><td>{{ name }}</td><td class="text wrap">{{ reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if results.methods %}
<h2>Methods</h2>
<p class="soft">Accuracy in percent on each client's test images and on average. Best in green, except the ceiling,
which trains on real images; FedLMG's rows are shaded.</p>
<div class="scroll"><table>
<thead><tr><th>method</th><th>mean</th>{% for client in clients %}<th>{{ client }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, method in results.methods.items() %}
{% set ranked = name != "ceiling" %}
<tr{% if name.startswith("fedlmg") %} class="ours"{% endif %}><td>{{ name }}</td>
{{ cell(method.accuracy, best(results), ranked) }}
{% for client in clients %}
{{ cell(method.per_client.get(client), best(results, client), ranked) }}
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if bars %}
<figure><img src="{{ bars.svg | data_uri("svg+xml") }}" alt="{{ bars.alt }}"></figure>
{% endif %}

{% for grid in grids %}
<h2>{{ grid.title }}</h2>
<p class="soft">A picture for each client, a column for each class;
{{ grid.clients | length }} of {{ grid.num_clients }} clients, {{ grid.classes | length }} of {{ grid.num_classes }}
classes shown.</p>
{% for name, png in grid.clients.items() %}
<figure><figcaption>{{ name }}</figcaption>
<div class="scroll"><div class="montage" style="--columns: {{ grid.classes | length }}">
<div class="labels">{% for label in grid.classes %}<span title="{{ label }}">{{ label }}</span>{% endfor %}</div>
<img src="{{ png | data_uri("png") }}"
alt="{{ grid.title }} for client {{ name }}; columns: {{ grid.classes | join(", ") }}">
</div></div></figure>
{% endfor %}
{% endfor %}

{% if curves %}
<h2>Learning curves</h2>
<div class="plots">
{% for plot in curves %}
<figure><img src="{{ plot.svg | data_uri("svg+xml") }}" alt="{{ plot.alt }}"></figure>
{% endfor %}
</div>
{% endif %}

<h2>Cost</h2>
<p>{{ synthesis.num_images }} images in {{ "%.1f" | format(synthesis.seconds) }} s:
{{ "%.1f" | format(synthesis.images_per_second) }} images a second.</p>
{% if rejections(results) %}
<div class="scroll"><table>
<thead><tr><th>client</th><th class="text">images not learned from</th></tr></thead>
<tbody>
{% for client, reasons in rejections(results).items() %}
<tr><td>{{ client }}</td><td class="text">
{% for reason, count in reasons.items() %}{{ reason }} {{ count }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
<details><summary>What the reasons mean</summary><p>confidence: the guiding classifier does not read the class asked
for. unsafe: the pipeline's safety checker. duplicate: too near another image. agreement: too few other clients read
the class asked for.</p></details>
{% endif %}
{% if results.stages %}
<div class="scroll"><table>
<thead><tr><th>stage</th><th>seconds</th></tr></thead>
<tbody>
{% for name, seconds in results.stages.items() %}
<tr><td>{{ name }}</td><td>{{ "%.1f" | format(seconds) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>Limits</h2>
<ul>
{% for limit in limits %}
<li>{{ limit }}</li>
{% endfor %}
</ul>

<h2>How it was made</h2>
{% for title, mapping in {"Configuration": results.config, "Versions": versions}.items() if mapping %}
<details><summary>{{ title }}</summary>
<div class="scroll"><table><tbody>
{% for key, value in mapping.items() %}
<tr><td>{{ key }}</td><td class="text wrap">{{ value }}</td></tr>
{% endfor %}
</tbody></table></div></details>
{% endfor %}
</main>
</body>
</html>
"""
)
