"""The sections of the page, as jinja2 templates, in no order: `template.py` has that."""

CLIENTS = """
<h2>Clients: this model against your own</h2>
<p class="soft">Accuracy in percent. The difference, in points, is the aggregated model against the client's own, both
on the client's own test images. “Own, on all clients” is what the client's own model is worth on everybody's.</p>
{% call tables.scroll("Clients") %}<table>
<thead><tr><th scope="col">client</th><th scope="col">own</th><th scope="col">aggregated</th>
<th scope="col">difference</th><th scope="col">own, on all clients</th><th scope="col" class="text">own model</th>
<th scope="col">training images</th><th scope="col">upload, MB</th></tr></thead>
<tbody>
{% for name, client in clients.items() %}
{% set change = points(client.aggregated_accuracy, client.own_accuracy) %}
<tr><th scope="row">{{ name }}</th><td>{{ client.own_accuracy | percent }}</td>
<td><b>{{ client.aggregated_accuracy | percent }}</b></td>
<td class="{{ {"+": "up", "\N{MINUS SIGN}": "down"}.get(change[0], "") }}">{{ change }}</td>
<td>{{ client.own_accuracy_all_clients | percent }}</td><td class="text">{{ client.architecture }}</td>
<td>{{ client.num_examples }}</td><td>{{ "%.1f" | format(client.upload_bytes / 1e6) }}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}

{% set matrix = views.matrix(results) %}
{% if matrix %}
<h2>Every model on every client's images</h2>
<p class="soft">Accuracy in percent: row model, column test images. A client's own model is strong at home and weak
elsewhere. {{ matrix.omitted }}</p>
{% call tables.scroll("Accuracy of every model on every client's test images") %}<table class="tight">
<thead><tr><th scope="col">model of</th>{% for name in matrix.columns %}<th scope="col">{{ name }}</th>{% endfor %}
<th scope="col">mean</th></tr></thead>
<tbody>
{% for name, accuracies, mean in matrix.rows %}
<tr{% if loop.last %} class="ours"{% endif %}><th scope="row">{{ name }}</th>
{% for value in accuracies %}{{ tables.shade(value) }}{% endfor %}{{ tables.shade(mean) }}</tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}
"""

LEFT_OUT = """
{% if clients.values() | selectattr("weight_reason") | list %}
<h2>Weak teachers</h2>
<p class="soft">Quality: 0 is chance, 1 is perfect. At weight 0 a client's images and targets are left out of the
student's training.</p>
{% call tables.scroll("Weak teachers") %}<table>
<thead><tr><th scope="col">client</th><th scope="col">quality</th><th scope="col">weight</th>
<th scope="col" class="text">why</th></tr></thead>
<tbody>
{% for name, client in clients.items() if client.weight_reason %}
<tr><th scope="row">{{ name }}</th><td>{{ "%.2f" | format(client.quality or 0) }}</td>
<td>{{ "%.2f" | format(client.weight) }}</td><td class="text wrap">{{ client.weight_reason }}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}

{% if missing %}
<h2>Not in the model</h2>
<p class="soft">Quarantined uploads, and clients that sent none.</p>
{% call tables.scroll("Clients that are not in the model") %}<table>
<thead><tr><th scope="col">client</th><th scope="col" class="text">why</th></tr></thead>
<tbody>
{% for name, reason in missing.items() %}
<tr><th scope="row">{{ name }}</th><td class="text wrap">{{ reason }}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}
"""

PRIVACY = """
{% if clients.values() | selectattr("membership") | list or clients.values() | selectattr("privacy") | list %}
<h2>What the uploads give away</h2>
<p class="soft">Each client attacked its own upload before sending it: is an image of its training set told from another
by its loss? AUC: 50 is a coin, 100 certainty. The attack is a simple one, so these are lower bounds. Epsilon bounds any
attack, where the client trained privately.</p>
{% call tables.scroll("What the uploads give away") %}<table>
<thead><tr><th scope="col">client</th><th scope="col">membership AUC, %</th>
<th scope="col">found at 1 % false alarms, %</th><th scope="col">epsilon</th></tr></thead>
<tbody>
{% for name, client in clients.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ (client.membership or {}).get("auc") | percent }}</td>
<td>{{ (client.membership or {}).get("tpr_at_1_percent_fpr") | percent }}</td>
<td>{{ "%g" | format(client.privacy.epsilon) if client.privacy else "none" }}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}
"""

METHODS = """
{% set shown = views.clients_shown(results) %}
{% if results.methods %}
<h2>Methods</h2>
<p class="soft">Accuracy in percent on each client's test images and on average. Best in green, except the ceiling,
which trains on real images; FedLMG's rows are shaded. {{ views.left_out(shown | length, clients | length, "clients") }}
</p>
{% call tables.scroll("Methods") %}<table>
<thead><tr><th scope="col">method</th><th scope="col">mean</th>
{% for client in shown %}<th scope="col">{{ client }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, method in results.methods.items() %}
{% set ranked = name != "ceiling" %}
<tr{% if name.startswith("fedlmg") %} class="ours"{% endif %}><th scope="row">{{ name }}</th>
{{ cell(method.accuracy, best(results), ranked) }}
{% for client in shown %}
{{ cell(method.per_client.get(client), best(results, client), ranked) }}
{% endfor %}
</tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}
{% if bars %}
<figure><img src="{{ bars.svg | data_uri("svg+xml") }}" alt="{{ bars.alt }}"></figure>
{% endif %}
"""

IMAGES = """
{% for grid in grids %}
{% set number = loop.index %}
<h2>{{ grid.title }}</h2>
{% if not loop.first %}<details><summary>Show the pictures</summary>{% endif %}
<p class="soft">A row for each client, a column for each class. Choose a picture to read its scores: what the client's
own model makes of it. {{ views.left_out(grid.clients | length, grid.num_clients, "clients") }}
{{ views.left_out(grid.classes | length, grid.num_classes, "classes") }}</p>
{% for name, tiles in grid.clients.items() %}
{% set row = loop.index %}
<figure><figcaption>{{ name }}</figcaption>
{% call tables.scroll(grid.title ~ " for " ~ name) %}
<div class="strips" style="--columns: {{ grid.classes | length }}">
{% for label in grid.classes %}<span class="name" title="{{ label }}">{{ label }}</span>{% endfor %}
{% for label in grid.classes %}
{% set tile = tiles[loop.index0] %}
{% if tile %}
<label style="grid-row: 2"><input type="radio" name="tile-{{ number }}-{{ row }}">
<img src="{{ tile.png | data_uri("png") }}" alt="{{ grid.title }} of class {{ label }} for client {{ name }}"></label>
<div class="scores"><b>{{ label }}</b>, from the top:<ol>
{% for line in tile.lines %}<li>{{ line }}</li>{% endfor %}</ol></div>
{% else %}<span style="grid-row: 2"></span>
{% endif %}
{% endfor %}
</div>{% endcall %}</figure>
{% endfor %}
{% if not loop.first %}</details>{% endif %}
{% endfor %}

{% if clients.values() | selectattr("images") | list %}
<h2>Kept and rejected images</h2>
<p class="soft">Rejected images are not learned from. Confidence: the client's model that guided the image gives the
class asked for less than {{ results.config.get("min-confidence", 0) | percent }} %. Unsafe: the pipeline's safety
checker.</p>
{% call tables.scroll("Kept and rejected images") %}<table>
<thead><tr><th scope="col">client</th><th scope="col">drawn</th><th scope="col">read as asked</th>
<th scope="col">kept</th><th scope="col">rejected</th><th scope="col" class="text">why</th></tr></thead>
<tbody>
{% for name, client in clients.items() if client.images %}
<tr><th scope="row">{{ name }}</th><td>{{ client.images.drawn }}</td><td>{{ client.images.read_as_asked }}</td>
<td>{{ client.images.kept }}</td><td>{{ client.images.drawn - client.images.kept }}</td><td class="text">
{%- for why, count in rejections(results).get(name, {}).items() %}
{{- why }} {{ count }}{{ ", " if not loop.last }}
{%- endfor %}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}
"""

CLASSES = """
{% if results.confusion %}
{% set classes = views.classes(results) %}
<h2>The aggregated model, class by class</h2>
<p class="soft">Accuracy in percent on the test images of all clients, and on each client's. {{ classes.omitted }}</p>
{% call tables.scroll("Accuracy by class") %}<table>
<thead><tr><th scope="col">class</th><th scope="col">images</th><th scope="col" class="text">all clients</th>
{% for name in classes.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, images, accuracy, by_client in classes.rows %}
<tr><th scope="row">{{ name }}</th><td>{{ images }}</td>{{ tables.bar(accuracy) }}
{% for value in by_client %}{{ tables.shade(value) }}{% endfor %}</tr>
{% endfor %}
</tbody></table>{% endcall %}

{% set confusion = views.confusion(results) %}
<h2>What it takes for what</h2>
{% if confusion.mistakes %}
<p>Most often: {% for real, said, share in confusion.mistakes %}
{{ real }} for {{ said }} ({{ share | percent }} %){{ ", " if not loop.last else "." }}{% endfor %}</p>
{% endif %}
{% if confusion.names %}
{{ tables.confusion(confusion.names, confusion.names, confusion.counts) }}
{% else %}
<p class="soft">The whole table has {{ confusion.num_classes }} rows; it is in results.json.</p>
{% endif %}
{% endif %}
"""

MAKING = """
{% for title, plots in {"Losses over denoising steps": step_curves, "Learning curves": curves}.items() if plots %}
<h2>{{ title }}</h2>
<div class="plots">
{% for plot in plots %}
<figure><img src="{{ plot.svg | data_uri("svg+xml") }}" alt="{{ plot.alt }}"></figure>
{% endfor %}
</div>
{% endfor %}

<h2>Time and cost</h2>
<p>{{ synthesis.num_images }} images in {{ "%.1f" | format(synthesis.seconds) }} s:
{{ "%.1f" | format(synthesis.images_per_second) }} images a second. Uploads:
{{ "%.1f" | format(clients.values() | sum(attribute="upload_bytes") / 1e6) }} MB in all, once.</p>
{% if results.stages %}
{% set total = results.stages.values() | sum %}
{% call tables.scroll("Seconds of each stage") %}<table>
<thead><tr><th scope="col">stage</th><th scope="col">seconds</th><th scope="col" class="text">share of all, %</th></tr>
</thead>
<tbody>
{% for name, seconds in results.stages.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ "%.1f" | format(seconds) }}</td>
{{ tables.bar(seconds / total if total else 0) }}</tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}

<h2>Limits</h2>
<ul>
{% for limit in limits %}
<li>{{ limit }}</li>
{% endfor %}
</ul>

<h2>How it was made</h2>
<p class="soft">The run's seed is {{ results.seed }}; each image has a seed of its own, derived from it, the client, the
class and a number: it is the image's file name. Same configuration, versions and seed: same result.</p>
{% for title, mapping in {"Configuration": results.config, "Versions": versions}.items() if mapping %}
<details><summary>{{ title }}</summary>
{% call tables.scroll(title) %}<table><tbody>
{% for key, value in mapping.items() %}
<tr><th scope="row">{{ key }}</th><td class="text wrap">{{ value }}</td></tr>
{% endfor %}
</tbody></table>{% endcall %}</details>
{% endfor %}
"""
