"""Settle which classes of the valid uploads the run goes on with, and which clients ask for too much."""

import torch

from common import labels, manifest
from common.labels.left_out import explain_left_out
from common.manifest import Manifest
from common.upload import Upload, is_whole
from fedlmg_server.collection.classes import find_excess, find_unusable, is_closed
from fedlmg_server.diffusion.vocabulary import Vocabulary, open_vocabulary
from fedlmg_server.events import Note
from fedlmg_server.quarantine import is_servers_own, quarantine
from fedlmg_server.run import Run


def settle_classes(run: Run) -> None:
    """Leave out classes that the diffusion model cannot draw, and quarantine clients that nothing is left of, or that
    ask for too much.

    Raises
    ------
    ConfigError: the diffusion model's configs cannot be read.
    """
    workspace = run.workspace
    vocabulary = open_vocabulary(run.config.synthesis)
    known = list(vocabulary.names or ())
    while True:
        found = _find_unusable(run, vocabulary)
        spent = {folder: _explain_spent(run, folder, why) for folder, why in found.items()}
        spent = {folder: reason for folder, reason in spent.items() if reason} or _find_excess(run, found, known)
        if not spent:
            break
        for folder, reason in spent.items():
            quarantine(workspace, folder, f"client '{_read(run, folder).client}': {reason}")
    for folder, why in found.items():
        if why != workspace.class_notes.left_out.get(folder):
            workspace.log(Note(text=f"client '{_read(run, folder).client}': {explain_left_out(why)}"))
    workspace.class_notes.note_found(known, found)


def _read(run: Run, folder: str) -> Manifest:
    return manifest.read(run.workspace.uploads / folder)


def _spell(run: Run, known: list[str]) -> dict[str, dict[str, str]]:
    """Folder of each upload -> its class names -> the spelling that all share."""
    said = {path.name: _read(run, path.name).class_names for path in run.workspace.uploads.glob("*") if is_whole(path)}
    spaces = {"": run.workspace.fixed_class_names or known, **said}
    spelt = labels.in_one_spelling(spaces, labels.parse_aliases(run.config.clients.class_aliases))
    return {folder: dict(zip(names, spelt[folder], strict=True)) for folder, names in said.items()}


def _find_unusable(run: Run, vocabulary: Vocabulary) -> dict[str, dict[str, str]]:
    """Folder -> its classes, in the client's spelling, that cannot be drawn, that come too late, or that the client was
    told to leave out and did not -> why."""
    spelt, told = _spell(run, list(vocabulary.names or ())), run.workspace.class_notes.told
    spaces = {folder: list(names.values()) for folder, names in spelt.items()}
    fixed = run.workspace.fixed_class_names
    unusable = find_unusable(spaces, vocabulary, fixed, is_closed(run.config, fixed))
    found = {}
    for folder, names in spelt.items():
        why, said = unusable.get(folder, {}), told.get(folder, {})
        found[folder] = {own: why.get(name) or said[own] for own, name in names.items() if name in why or own in said}
    return {folder: why for folder, why in found.items() if why}


def _explain_spent(run: Run, folder: str, why: dict[str, str]) -> str:
    """Why an upload cannot be used without some of its classes; empty if it can."""
    if run.config.clients.unknown_classes == "quarantine":
        return explain_left_out(why)
    upload = Upload.load(run.workspace.uploads / folder, run.config.builders)
    try:
        _check_part(upload, upload.without_classes(why))
    except Exception as error:  # A builder of the operator's may raise anything.
        if is_servers_own(error):
            raise
        return f"{explain_left_out(why)}; and {error}"
    return ""


@torch.no_grad()
def _check_part(upload: Upload, part: Upload) -> None:
    """
    Raises
    ------
    ValueError: the part, which lacks some of the upload's classes, has no images of the others, or its classifier does
        not give the others' outputs.
    """
    if not part.held_class_names:
        raise ValueError("no class with images remains")
    size, rows = upload.preprocess.image_size, [name in part.class_names for name in upload.class_names]
    noise = upload.preprocess(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    try:
        logits, fewer = (each.classifier()(noise) for each in (upload, part))
    except RuntimeError:
        raise ValueError("its classifier cannot do without them") from None
    if not torch.allclose(logits[:, rows], fewer, rtol=1e-3, atol=1e-3):
        raise ValueError("its classifier cannot do without them")


def _find_excess(run: Run, found: dict[str, dict[str, str]], known: list[str]) -> dict[str, str]:
    """Folder -> why its client must go, so that the run keeps within its limits."""
    spelt, held = _spell(run, known), {}
    for folder in spelt:
        without = found.get(folder, {})
        held[folder] = len([name for name in _read(run, folder).held_class_names if name not in without])
        spelt[folder] = {own: name for own, name in spelt[folder].items() if own not in without}
    spaces = {folder: list(names.values()) for folder, names in spelt.items()}
    return find_excess(spaces, held, run.config, run.workspace.fixed_class_names)
