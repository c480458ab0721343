"""Names of folders that say what lies in them, but name no class: splits, pictures, masks, and litter of systems."""

import re

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev", "crossval"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}
"""The names of splits in folders, lists and tables -> `train`, `validation` or `test`."""
BESIDE_SPLITS = frozenset({
    "set", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos", "seg",
})  # fmt: skip
"""Words that may stand beside a split's name, or be joined to it: `train_images`, `seg_test`, `val2017`, `TestSet`."""
JOINED = re.compile(f"(?<![a-z])({'|'.join(SPLITS)})({'|'.join(sorted(BESIDE_SPLITS))})(?![a-z])")
PICTURES = frozenset({
    "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "jpg", "jpeg", "jpegs",
    "png", "pngs", "bmp", "tif", "tiff", "jpegimages", "pngimages", "scan", "scans", "slice", "slices", "frame",
    "frames", "xray", "xrays", "raw", "original", "originals", "orig", "rgb", "input", "inputs",
})  # fmt: skip
MASKS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "seg", "gt",
    "groundtruth", "truth", "contour", "contours", "overlay", "overlays", "heatmap", "heatmaps", "segmentationclass",
    "segmentationobject", "bbox", "bboxes",
})  # fmt: skip
NEVER_CLASSES = frozenset({
    "image", "images", "img", "imgs", "jpegimages", "pictures", "pics", "masks", "labels", "annotations",
    "segmentations", "groundtruth", "segmentationclass", "segmentationobject",
})  # fmt: skip
"""Names that are surely no class; `mask` and `photo` may be one."""
MASK_FILE = re.compile(r"(?P<of>.+?)[ _-](mask|masks|seg|segmentation|gt|label|annotation)([ _-]?\d+)?", re.IGNORECASE)
"""The stem of a file that is the mask of another: `scan (1)_mask_2`."""
LITTER = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle",
    "@recently-snapshot", "$recycle.bin", "recycler", "lost+found", "__pycache__", "lightning_logs",
    "wandb", "system volume information", "network trash folder", "temporary items",
})  # fmt: skip
"""Files and folders of systems, NAS boxes and tools, in lower case; so is whatever begins with a dot."""


def is_litter(name: str) -> bool:
    """Whether a file or folder was left by a system or a tool, or is hidden."""
    return name.startswith((".", "~$")) or name.lower() in LITTER


def split_of(name: str) -> str | None:
    """The split that a folder's name says, in any case, with a number or a general word: `Testing`, `trainset`."""
    words = re.findall(r"[a-z]+", JOINED.sub(r"\1 \2", name.lower()))
    splits = {SPLITS[word] for word in words if word in SPLITS}
    others = [word for word in words if word not in SPLITS]
    return splits.pop() if len(splits) == 1 and BESIDE_SPLITS.issuperset(others) else None


def is_pictures(name: str) -> bool:
    """Whether a folder's name may say that it holds the pictures, beside folders of masks."""
    return _plain(name) in PICTURES


def is_masks(name: str) -> bool:
    """Whether a folder's name may say that it holds masks: `masks`, `lung masks`, `ground_truth`."""
    return _plain(name) in MASKS or not MASKS.isdisjoint(re.findall(r"[a-z]+", name.lower()))


def is_never_class(name: str) -> bool:
    """Whether a folder's name is surely none of a class: `images`, `lung masks`, but not `no_mask`."""
    words = re.findall(r"[a-z]+", name.lower())
    return _plain(name) in NEVER_CLASSES or (bool(words) and words[-1] in NEVER_CLASSES)


def may_be_no_class(name: str) -> bool:
    """Whether a name that many folders share may say pictures, masks or a split rather than a class."""
    return _plain(name) in PICTURES | MASKS or is_never_class(name) or split_of(name) is not None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
