"""Random folder trees of images with known classes and splits: levels in any order, wrappers, masks, litter, strays."""

import random
from dataclasses import dataclass, field
from pathlib import Path

CLASSES = ("cat", "dog", "fox", "Viral Pneumonia", "no_mask", "hot air balloon", "café", "7", "C#", "train station")
DOMAINS = ("photo", "sketch", "siteA", "real world")
WRAPPERS = ("PetImages", "archive", "data", "dataset-v2", "images", "kfold", "My Files")
SPLITS = {
    "train": ("train", "Train", "training", "TRAINING", "train_images", "seg_train"),
    "validation": ("val", "valid", "Validation", "dev", "val2017"),
    "test": ("test", "Testing", "eval", "evaluation", "holdout", "test_set"),
}
PICTURES = (("images", "masks"), ("img", "labels"), ("JPEGImages", "SegmentationClass"), ("Images", "lung masks"))
LITTER = ("__MACOSX", "@eaDir", ".git", "#recycle", "$RECYCLE.BIN", ".ipynb_checkpoints", "System Volume Information")
LITTER_FILES = ("Thumbs.db", ".DS_Store", "._1.png", "desktop.ini")


@dataclass
class Tree:
    """A tree on disk."""

    classes: set[str]
    truth: dict[Path, tuple[str, str | None]] = field(default_factory=dict)
    """Image -> its class and split."""


def grow(root: Path, seed: int) -> Tree:
    """Write a tree below `root`; all its files are empty."""
    rng = random.Random(seed)
    tree = Tree(set(rng.sample(CLASSES, rng.randint(2, 4))))
    above = ["class"]
    if rng.random() < 0.35:
        above.insert(0, "domain")
    if rng.random() < 0.5:
        above.insert(rng.randint(0, len(above)), "split")
    if rng.random() < 0.3:
        above.insert(rng.randint(0, len(above)), "pictures")
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        above.insert(rng.randint(0, above.index("class")), rng.choice(WRAPPERS))
    spelt = {split: rng.choice(names) for split, names in SPLITS.items() if split == "train" or rng.random() < 0.7}
    names = {
        "domain": rng.sample(DOMAINS, rng.randint(2, 3)),
        "split": list(spelt.values()),
        "class": sorted(tree.classes),
    }
    _Grower(rng, tree, above, names, {name: split for split, name in spelt.items()}, rng.choice(PICTURES)).grow(root)
    _spoil(rng, root)
    return tree


@dataclass
class _Grower:
    rng: random.Random
    tree: Tree
    levels: list[str]
    names: dict[str, list[str]]
    """Kind of level -> its folders."""
    splits: dict[str, str]
    pictures: tuple[str, str]
    may_lack: bool = True
    """Whether one class may still be missing in one place."""

    def grow(self, folder: Path, depth: int = 0, label: str = "", split: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if depth == len(self.levels):
            self._fill(folder, label, split)
            return
        level = self.levels[depth]
        if level == "pictures":
            self.grow(folder / self.pictures[0], depth + 1, label, split)
            if self.rng.random() < 0.7:
                _touch(folder / self.pictures[1], self.rng.randint(1, 3))
            return
        for name in self.names.get(level, [level]):
            if level == "class" and split != "train" and self.may_lack and self.rng.random() < 0.05:
                self.may_lack = False
                continue
            said = (name if level == "class" else label, self.splits[name] if level == "split" else split)
            self.grow(folder / name, depth + 1, *said)

    def _fill(self, folder: Path, label: str, split: str | None) -> None:
        images = _touch(folder, self.rng.randint(1, 4))
        if self.rng.random() < 0.1:
            images += _touch(folder / f"session {self.rng.randint(1, 9)}", 1)
        self.tree.truth |= dict.fromkeys(images, (label, split))


def _touch(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files:
        file.touch()
    return files


def _spoil(rng: random.Random, root: Path) -> None:
    """Put litter anywhere, and sometimes something that its owner forgot there."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in rng.sample(folders, min(len(folders), rng.randint(0, 3))):
        _touch(folder / rng.choice(LITTER), 2)
        (rng.choice(folders) / rng.choice(LITTER_FILES)).touch()
    if rng.random() < 0.2:
        (root / "docs").mkdir(exist_ok=True)
        (root / "docs" / "readme.txt").touch()
    if rng.random() < 0.15:
        (root / "logo.png").touch()
