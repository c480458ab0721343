"""The page's jinja2 template; `common/html_page.py` has its look, and says why templates are Python strings."""

from fedlmg_server.report.sections import CLASSES, CLIENTS, IMAGES, LEFT_OUT, MAKING, METHODS, PRIVACY

LOOK = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .5rem 1.5rem; }
.strips { display: grid; grid-template-columns: repeat(var(--columns), minmax(2.1rem, 4rem)); justify-content: start; }
.strips .name { font-size: .75rem; color: var(--soft); text-align: center; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.strips label { cursor: pointer; position: relative; border: 2px solid transparent; }
.strips label:has(input:checked) { border-color: var(--accent); }
.strips label:has(input:focus-visible) { outline: 2px solid var(--accent); }
.strips input { position: absolute; opacity: 0; inset: 0; margin: 0; cursor: pointer; }
.strips img { width: 100%; image-rendering: pixelated; background: var(--panel); }
.strips .scores { display: none; grid-column: 1 / -1; grid-row: 3; padding: .5rem .8rem; background: var(--panel);
  font-size: .9rem; position: sticky; left: 0; white-space: normal; max-width: calc(100vw - 2rem); }
.strips label:has(input:checked) + .scores { display: block; }
.scores ol { margin: .2rem 0; padding-left: 1.4rem; }
"""

HEADER = """
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
<p>Each client trained a model on its own images and uploaded it once. The server saw none of these images: guided by
each upload, it drew synthetic ones, trained one model on them, and sent it back to everyone.</p>
</header>
"""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FedLMG report</title>
<link rel="icon" href="data:,">
<style>{{{{ style }}}}{LOOK}</style>
</head>
<body>
{{% import "macros" as tables %}}
{{% macro cell(accuracy, highest, ranked) %}}
{{% set first = ranked and accuracy is not none and accuracy == highest %}}
<td{{% if first %}} class="best"{{% endif %}}>{{{{ accuracy | percent }}}}</td>
{{% endmacro %}}
{{% set clients = results.clients %}}
{{% set synthesis = results.synthesis %}}
{HEADER}
<main>
{CLIENTS}{LEFT_OUT}{IMAGES}{METHODS}{CLASSES}{PRIVACY}{MAKING}
</main>
</body>
</html>
"""
