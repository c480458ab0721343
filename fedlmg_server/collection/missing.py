"""Why an upload did not arrive, for each client that is missing."""

from fedlmg_server.collection.broadcast import Broadcast
from fedlmg_server.collection.uploads import find_held
from fedlmg_server.workspace import Workspace


def explain_missing(
    broadcast: Broadcast, known: dict[int, str], workspace: Workspace, num_expected: int, is_simulated: bool
) -> dict[str, str]:
    """Client name, or node if the name is unknown -> reason, also for expected clients that never connected.

    known: node -> client name, as far as names are known.
    """
    held, forgotten, missing = find_held(workspace), workspace.forgotten, {}
    for node, (name, reason) in broadcast.list_unanswered().items():
        name = name or known.get(node, "")
        # A client without a key is a new node after every start, and its upload may have come from that.
        is_there = name in held and node not in broadcast.failed
        if name not in forgotten and not is_there:
            # Another client of the same name is in the run.
            missing[f"node {node}" if name in held else name or f"node {node}"] = reason
    num_absent = max(0, num_expected - len(held) - len(missing))
    heard_of = {*held, *missing}
    absent = [name for name in dict.fromkeys(known.values()) if name not in heard_of and name not in forgotten]
    absent = absent[:num_absent]
    if nameless := num_absent - len(absent):
        absent.append(f"{nameless} more")
    few = (
        "Flower simulates too few virtual clients: start the run with `flwr run` --federation-config "
        f'"num-supernodes={num_expected}"'
    )
    return missing | dict.fromkeys(absent, few if is_simulated else "never connected")
