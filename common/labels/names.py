"""Class names are the truth, never indices: one spelling for each class, the union of the clients' label spaces.

Names that differ only in case or blanks, or that the alias table joins, are one class.
"""


def fold_name(name: str) -> str:
    """A class name without what does not tell classes apart: case, and blanks around and between words."""
    return " ".join(name.casefold().split())


def parse_aliases(text: str) -> dict[str, str]:
    """`automobile=car, plane=airplane` as folded name -> the name it stands for, chains followed to their end.

    Raises
    ------
    ValueError: not of that form, a name with two meanings, or a cycle.
    """
    direct: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        alias, _, target = (part.strip() for part in pair.partition("="))
        if not alias or not target:
            raise ValueError(f"config key 'class-aliases' holds '{pair.strip()}', not of the form 'alias=class'")
        if fold_name(direct.setdefault(fold_name(alias), target)) != fold_name(target):
            raise ValueError(
                f"config key 'class-aliases': '{alias}' stands for both '{direct[fold_name(alias)]}' and '{target}'"
            )
    return {alias: _end(alias, direct) for alias in direct}


def _end(alias: str, direct: dict[str, str]) -> str:
    passed, name = [alias], direct[alias]
    while fold_name(name) in direct:
        if fold_name(name) in passed:
            raise ValueError(
                f"config key 'class-aliases': {' = '.join([*passed, fold_name(name)])} leads back to its start"
            )
        passed.append(fold_name(name))
        name = direct[fold_name(name)]
    return name


def class_key(name: str, aliases: dict[str, str]) -> str:
    """What two names of one class have in common; `aliases` as `parse_aliases` returns them."""
    return fold_name(aliases.get(fold_name(name), name))


def check_distinct(class_names: list[str], aliases: dict[str, str]) -> None:
    """Raises ValueError, naming both, when two classes of one client are the same class."""
    seen: dict[str, str] = {}
    for name in class_names:
        if first := seen.get(class_key(name, aliases)):
            raise ValueError(
                f"classes '{first}' and '{name}' are one class by case, blanks or 'class-aliases': rename one"
            )
        seen[class_key(name, aliases)] = name


def in_one_spelling(spaces: dict[str, list[str]], aliases: dict[str, str]) -> dict[str, list[str]]:
    """Each client's class names, in its own order, in the spelling that all share.

    A class is spelt as the first client, by name, spells it; one that is known by its aliases alone as the table does.
    """
    shown: dict[str, str] = {}
    for client in sorted(spaces):
        for name in spaces[client]:
            if fold_name(name) not in aliases:
                shown.setdefault(fold_name(name), " ".join(name.split()))
    for target in aliases.values():
        shown.setdefault(fold_name(target), target)
    return {client: [shown[class_key(name, aliases)] for name in names] for client, names in spaces.items()}


def union_of_names(label_spaces: list[list[str]]) -> list[str]:
    """All class names, each once, sorted (numbers by value)."""
    names = {name for space in label_spaces for name in space}
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
