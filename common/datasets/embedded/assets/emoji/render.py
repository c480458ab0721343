"""Render nine sets of emoji into the sheets of `common/datasets/embedded/assets/emoji`; this was done once.

    npm install --prefix packages emojibase-data @iconify-json/{noto,twemoji,openmoji,emojione-monotone} \
        @iconify-json/{fluent-emoji,fluent-emoji-flat,fluent-emoji-high-contrast,fxemoji,streamline-emojis}
    folder=common/datasets/embedded/assets/emoji
    uv run --with resvg_py $folder/render.py packages $folder

A sheet is a WebP file of transparent tiles. `concepts.json` lists the concept of each tile (an emoji's code points),
and the class and split of each concept. If an emoji has several skin tones, each set shows one of them, chosen by hash.
"""

import io
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import resvg_py
from PIL import Image

from common.datasets.embedded.emoji_sheets import TILE

COLUMNS = 32
LEAST_COVERED = 0.08
"""The smallest share of a tile that must be mostly opaque; emptier drawings are left out."""
MOST_FAMILIES = 90
"""The most families of a class that are kept."""
SPLITS = ("train",) * 6 + ("validation",) + ("test",) * 3
"""The splits of every ten families of a class.

What the test images show is in no training image of a client or of the public set.
"""
CLASSES = {
    "animal": ("animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile", "animal-marine", "animal-bug"),
    "building": ("place-building", "place-religious"),
    "clothing": ("clothing",),
    "face": (
        *("face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical", "face-sleepy"),
        *("face-unwell", "face-hat", "face-glasses", "face-concerned", "face-negative"),
    ),
    "food": ("food-prepared", "food-asian", "food-sweet", "drink"),
    "hand": (
        *("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands"),
        "hand-prop",
    ),
    "person": ("person", "person-gesture", "person-role"),
    "plant": ("plant-flower", "plant-other", "food-fruit", "food-vegetable"),
    "sky": ("sky-weather",),
    "vehicle": ("transport-ground", "transport-water", "transport-air"),
}
"""Class -> the subgroups of Unicode's list of emoji that belong to it."""
NO_VEHICLES = (
    *("motorway", "railway track", "bus stop", "fuel pump", "horizontal traffic light", "vertical traffic light"),
    *("construction", "stop sign", "police car light", "wheel", "anchor", "ring buoy", "seat"),
)
SETS = (
    *("noto", "twemoji", "openmoji", "emojione-monotone"),
    *("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "fxemoji", "streamline-emojis"),
)


def concepts(packages: Path) -> dict[str, tuple[str, str, list[str]]]:
    """Concept -> its class, its split, and the code points of its variants (one for each skin tone)."""
    folder = packages / "node_modules" / "emojibase-data"
    subgroups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))["subgroups"]
    families: dict[str, dict[str, dict[str, list[str]]]] = {class_name: {} for class_name in CLASSES}
    for emoji in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        for class_name, parts in CLASSES.items():
            if subgroups.get(str(emoji.get("subgroup"))) in parts and emoji["label"] not in NO_VEHICLES:
                codes = [_plain(each["hexcode"]) for each in (emoji, *emoji.get("skins", []))]
                families[class_name].setdefault(_family(emoji["label"]), {})[codes[0]] = codes
    kept: dict[str, tuple[str, str, list[str]]] = {}
    for class_name, own in families.items():
        shuffled = sorted(own, key=lambda family: zlib.crc32(family.encode()))[:MOST_FAMILIES]
        for index, family in enumerate(shuffled):
            split = SPLITS[index % len(SPLITS)]
            kept |= {concept: (class_name, split, codes) for concept, codes in own[family].items()}
    return dict(sorted(kept.items()))


def _family(label: str) -> str:
    """The label without the person: a man, a woman and a person that do the same are one family."""
    return re.sub(r"^(man|woman|men|women|person|old man|old woman|older person|boy|girl|child|baby)\b:? ?", "", label)


def _plain(code_points: str) -> str:
    return code_points.lower().replace("-fe0f", "")


def codes_by_letters(packages: Path) -> dict[str, str]:
    """Letters of an icon's name -> code points, from the sets that list both; the other sets use similar names."""
    found: dict[str, str] = {}
    for name in ("twemoji", "noto", "openmoji"):
        characters = json.loads((_icons(packages, name) / "chars.json").read_text(encoding="utf-8"))
        found |= {_letters(icon): _plain(code) for code, icon in characters.items()}
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _icons(packages: Path, name: str) -> Path:
    return packages / "node_modules" / "@iconify-json" / name


def drawings(packages: Path, name: str, by_letters: dict[str, str]) -> dict[str, str]:
    """Code points -> SVG of every emoji of one set."""
    icons = json.loads((_icons(packages, name) / "icons.json").read_text(encoding="utf-8"))
    characters = json.loads((_icons(packages, name) / "chars.json").read_text(encoding="utf-8"))
    names = {_plain(code): icon for code, icon in characters.items()}
    if not names:
        names = {by_letters[_letters(icon)]: icon for icon in icons["icons"] if _letters(icon) in by_letters}
    width, height = icons.get("width", 16), icons.get("height", 16)
    found = {}
    for code, icon in names.items():
        if body := icons["icons"].get(icon):
            box = (body.get("left", 0), body.get("top", 0), body.get("width", width), body.get("height", height))
            found[code] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black" '
                f'viewBox="{" ".join(map(str, box))}">{body["body"]}</svg>'
            )
    return found


def tile(svg: str) -> Image.Image:
    """An RGBA image of `TILE` pixels, cropped to the drawing and centred in a square."""
    large = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * TILE)))).convert("RGBA")
    drawn = large.crop(large.getchannel("A").getbbox())
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square.convert("RGBa").resize((TILE, TILE), Image.Resampling.LANCZOS).convert("RGBA")


def _covered(drawing: Image.Image) -> float:
    """Share of the tile that is mostly opaque."""
    return sum(drawing.getchannel("A").histogram()[128:]) / TILE**2


def render(packages: Path, out: Path) -> None:
    """Write the sheets of all sets, and `concepts.json`, to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    by_letters, wanted, sheets = codes_by_letters(packages), concepts(packages), {}
    for name in SETS:
        svgs, tiles = drawings(packages, name, by_letters), {}
        for concept, (_, _, variants) in wanted.items():
            if drawn := [variant for variant in variants if variant in svgs]:
                drawing = tile(svgs[drawn[zlib.crc32(f"{name}/{concept}".encode()) % len(drawn)]])
                if _covered(drawing) >= LEAST_COVERED:
                    tiles[concept] = drawing
        sheet = Image.new("RGBA", (COLUMNS * TILE, -(-len(tiles) // COLUMNS) * TILE))
        for index, each in enumerate(tiles.values()):
            sheet.paste(each, (index % COLUMNS * TILE, index // COLUMNS * TILE))
        sheet.save(out / f"{name}.webp", quality=80, method=6)
        sheets[name] = list(tiles)
        print(name, len(tiles), dict(Counter(wanted[concept][0] for concept in tiles)), flush=True)
    listed = {concept: [class_name, split] for concept, (class_name, split, _) in wanted.items()}
    (out / "concepts.json").write_text(
        json.dumps({"concepts": listed, "sheets": sheets}, separators=(",", ":")) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    render(Path(sys.argv[1]), Path(sys.argv[2]))
