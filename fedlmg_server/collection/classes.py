"""Which of the clients' classes a run goes on without, and which clients name too many, before anything is drawn.

One client's class never ends a run. What the diffusion model does not know, or reads as it reads another class, is
left out for that client alone.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Mapping

from common.config import Config
from common.contracts import show_value
from fedlmg_server.diffusion.vocabulary import Vocabulary, find_alike

RENAME = "rename it, or set 'class-aliases'"
LATE = "came after the classes of this run were fixed: start a new run for it"


def is_closed(config: Config, fixed: Collection[str]) -> bool:
    """Whether a run takes no class beyond those that were fixed at the question: with another one, nothing could be
    merged for anybody, for the general model that all start from does not know it."""
    return bool(fixed) and config.distillation.aggregation == "merge"


def find_unusable(
    spaces: Mapping[str, list[str]], vocabulary: Vocabulary, fixed: Collection[str] = (), closed: bool = False
) -> dict[str, dict[str, str]]:
    """Client -> its classes that the model cannot draw or cannot tell from another, or that come too late -> why, in a
    clause.

    Of classes that the model reads alike, one stays: one that is fixed, else the one that most clients have.

    spaces: client -> class names, in the spelling that all share. fixed: classes that the run has in any case. closed:
    it takes no others.
    """
    unknown = {client: [name for name in names if not vocabulary.knows(name)] for client, names in spaces.items()}
    reasons = {name: _explain_unknown(name, vocabulary) for names in unknown.values() for name in names[1:]}
    # A sentence explains the first alone; to look for the nearest of each would take minutes.
    reasons |= {name: _explain_unknown(name, vocabulary, True) for names in unknown.values() for name in names[:1]}
    late = {name for names in spaces.values() for name in names if closed and name not in fixed}
    reasons |= {name: f"{show_value(name)} {LATE}" for name in late - reasons.keys()}
    times = Counter(name for names in spaces.values() for name in names)
    drawn = sorted({*fixed, *(name for names in spaces.values() for name in names if name not in reasons)})
    for group in find_alike(vocabulary, drawn):
        first, *others = sorted(group, key=lambda name: (name not in fixed, -times[name], name))
        for name in others:
            reasons[name] = f"{vocabulary.model} cannot tell {show_value(name)} from {show_value(first)}: {RENAME}"
    found = {client: {name: reasons[name] for name in names if name in reasons} for client, names in spaces.items()}
    return {client: why for client, why in found.items() if why}


def _explain_unknown(name: str, vocabulary: Vocabulary, names_nearest: bool = False) -> str:
    nearest = difflib.get_close_matches(name, (names_nearest and vocabulary.names) or (), n=1, cutoff=0)
    known = f"; its nearest is {show_value(nearest[0])}" if nearest else ""
    return f"{vocabulary.model} was not trained on {show_value(name)}{known}: {RENAME}"


def explain_excess(num_classes: int, num_held: int, config: Config) -> str:
    """Why a client that names so many classes, and holds images of so many, is refused; empty if it is not."""
    clients, per_class = config.clients, config.synthesis.images_per_class
    if num_classes > clients.max_classes:
        return (
            f"it names {num_classes} classes, but 'max-classes' allows {clients.max_classes}: raise that key, or let "
            "the client join classes"
        )
    if (asked := num_held * per_class) > clients.max_images:
        return (
            f"its {num_held} classes ask for {asked} images, but 'max-images' allows {clients.max_images}: raise that "
            "key, or lower 'images-per-class'"
        )
    return ""


def find_excess(
    spaces: Mapping[str, list[str]], held: Mapping[str, int], config: Config, fixed: Collection[str] = ()
) -> dict[str, str]:
    """Client -> why it must go, so that all together keep within `max-classes` and `max-images`.

    Of too many images, the client that holds the most classes goes first. Of too many classes, it is the client with
    the most that no other has: without clients that share their classes there would be hardly fewer.

    spaces: client -> class names, in the spelling that all share. held: client -> of how many it holds images. fixed:
    classes that the run has in any case.
    """
    left, gone, per_class = dict(spaces), {}, config.synthesis.images_per_class
    while left:
        num_classes = len({*fixed, *(name for names in left.values() for name in names)})
        num_images = per_class * sum(held[client] for client in left)
        if num_classes > (most := config.clients.max_classes):
            times = Counter(name for names in (*left.values(), list(fixed)) for name in names)
            alone = {client: sum(times[name] == 1 for name in names) for client, names in left.items()}
            client = max(left, key=lambda name: (alone[name], len(left[name]), held[name], name))
            key, found = "max-classes", f"{num_classes} classes"
            share = f"{alone[client]} are of this client alone, which has {len(left[client])}"
        elif num_images > (most := config.clients.max_images):
            client = max(left, key=lambda name: (held[name], len(left[name]), name))
            key, found = "max-images", f"{num_images} images"
            share = f"{per_class * held[client]} are for this client, more than for any other"
        else:
            break
        gone[client] = (
            f"all clients together have {found}, but '{key}' allows {most}, and of them {share}: raise that key, or "
            "let the client join classes"
        )
        del left[client]
    return gone
