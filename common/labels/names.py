"""One spelling for each class name, and the union of the clients' label spaces.

Classes are compared by name, never by index. Names that differ only in case or blanks are one class; so are names that
the alias table joins.
"""


def fold_name(name: str) -> str:
    """The class name in lower case, without outer blanks and with single blanks between words."""
    return " ".join(name.casefold().split())


def parse_aliases(text: str) -> dict[str, str]:
    """The config key `class-aliases`, such as `automobile=car, plane=airplane`, as a table: folded name -> class name.

    Chains of aliases are followed to their end.

    Raises
    ------
    ValueError: a pair is not of the form `alias=class`, a name has two meanings, or the aliases form a cycle.
    """
    direct: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        alias, _, target = (part.strip() for part in pair.partition("="))
        if not alias or not target:
            raise ValueError(f"config key 'class-aliases' must hold pairs 'alias=class', and holds '{pair.strip()}'")
        if fold_name(direct.setdefault(fold_name(alias), target)) != fold_name(target):
            raise ValueError(
                f"config key 'class-aliases' gives '{alias}' two classes, '{direct[fold_name(alias)]}' and '{target}': "
                "keep one of them"
            )
    return {alias: _end(alias, direct) for alias in direct}


def _end(alias: str, direct: dict[str, str]) -> str:
    passed, name = [alias], direct[alias]
    while fold_name(name) in direct:
        if fold_name(name) in passed:
            raise ValueError(
                f"config key 'class-aliases' must hold no cycle, and holds {' = '.join([*passed, fold_name(name)])}: "
                "remove one of these pairs"
            )
        passed.append(fold_name(name))
        name = direct[fold_name(name)]
    return name


def class_key(name: str, aliases: dict[str, str]) -> str:
    """The key that all names of one class share; `aliases` is the table that `parse_aliases` returns."""
    return fold_name(aliases.get(fold_name(name), name))


def check_distinct(class_names: list[str], aliases: dict[str, str]) -> None:
    """Check that the classes of one client are distinct.

    Raises
    ------
    ValueError: two names stand for one class; the message gives both.
    """
    seen: dict[str, str] = {}
    for name in class_names:
        if first := seen.get(class_key(name, aliases)):
            raise ValueError(
                f"classes '{first}' and '{name}' count as one class (by case, blanks or 'class-aliases'): rename one"
            )
        seen[class_key(name, aliases)] = name


def in_one_spelling(spaces: dict[str, list[str]], aliases: dict[str, str]) -> dict[str, list[str]]:
    """Each client's class names, in the client's own order, in a spelling that all clients share.

    The first client by name decides how a class is spelt. A class that every client calls by an alias is spelt as the
    alias table spells it.
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
    """All class names, each once, sorted; numbers are sorted by value and come first."""
    names = {name for space in label_spaces for name in space}
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
