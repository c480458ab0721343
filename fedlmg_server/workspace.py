"""The run's folder on the server: every stage reads what the stage before left here, and skips what is already there.

The run           run.json, nodes.json, forgotten.json, events.jsonl, flower.log, trackers/
Before uploads    classes.json, general/
For each client   uploads/, quarantine/, synthetic/ with <client>/<class>/<seed>.png, synthetic-prompts-only/, witness/
While it works    prompts/, logs/, incidents/, distillation/
Results           model/, report/
A simulation      virtual-clients/, baselines/
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from common.config import Config, ConfigError
from common.names import is_plain_name, safe_name
from common.storage.atomic import write_json
from common.storage.event_log import append_event
from fedlmg_server import class_notes, run_record
from fedlmg_server.class_notes import ClassNotes
from fedlmg_server.events import RunEvent, StageFinished, StageStarted, follow_events
from fedlmg_server.forgotten import Forgotten

METHODS = ("fedlmg", "prompts-only")
"""Ways to generate synthetic images: guided by a classifier, or by the prompt alone (a baseline)."""


def _rename_former_folders(root: Path) -> None:
    """Folders of clients with upper-case letters in their names, which kept them in earlier versions."""
    for folder in [path for kind in ("uploads", "quarantine", "synthetic*") for path in root.glob(f"{kind}/*")]:
        if is_plain_name(folder.name) and (name := safe_name(folder.name)) != folder.name:
            folder.rename(folder.with_name(name))


@dataclass
class StageWork:
    """What a stage has done so far."""

    images: int = 0
    """Images that it generated."""


@dataclass(frozen=True)
class Workspace:
    root: Path

    @classmethod
    def open(cls, config: Config, versions: dict[str, str]) -> "Workspace":
        """Make the folder, or continue one that was made with the same config but for `run_record.MAY_CHANGE`.

        One that no client has uploaded to takes any config, and is made anew.

        Raises
        ------
        ConfigError: it was made with another config, the message lists the differences, or by another version; it
        cannot be written; or another run is using it.
        """
        workspace = cls(Path(config.options.workspace).expanduser().resolve())
        run, record = workspace.root / run_record.FILE, run_record.make(config)
        if run.exists():
            made, made_with = run_record.read(run)
            if changes := run_record.list_changes(made_with.settings(), record["config"]):
                if workspace.has_uploads:
                    raise ConfigError(
                        f"workspace {workspace.root} was made with another config ({'; '.join(changes)}): "
                        "use that config again, or another workspace"
                    )
                with workspace.lock():
                    workspace.forget_preparations()
            _rename_former_folders(workspace.root)
            if made != made | record:
                # The processes of a run that goes on read its config here.
                with workspace.lock():
                    write_json(run, made | record)
        else:
            try:
                write_json(run, record | {"versions": versions})
            except OSError as error:
                raise ConfigError(f"workspace {workspace.root} cannot be written: {error.strerror}") from None
        return workspace

    @classmethod
    def existing(cls, root: Path) -> tuple["Workspace", Config]:
        """One that a run has made, and that run's config.

        Raises
        ------
        ConfigError: there is none, or one of another version.
        """
        workspace = cls(root.expanduser().resolve())
        if not (workspace.root / run_record.FILE).exists():
            raise ConfigError(f"{workspace.root} is no workspace of a run: it holds no {run_record.FILE}")
        config = run_record.read(workspace.root / run_record.FILE)[1]
        _rename_former_folders(workspace.root)
        return workspace, config

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def has_uploads(self) -> bool:
        """Whether any client's upload has arrived, be it in quarantine, or be only the model left that it gave."""
        folders = (self.uploads, self.quarantine)
        return self.model.exists() or any(any(folder.glob("*/manifest.json")) for folder in folders)

    def forget_preparations(self) -> None:
        """Remove what was made before any upload: general models and images, prompts, and notes of class names."""
        for folder in (self.general, self.prompts):
            shutil.rmtree(folder, ignore_errors=True)
        (self.root / class_notes.FILE).unlink(missing_ok=True)

    def upload(self, client: str) -> Path:
        return self.uploads / safe_name(client)

    @property
    def prompts(self) -> Path:
        """Encoded prompts; they are made again where they are missing."""
        return self.root / "prompts"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    def synthetic(self, client: str, method: str = "fedlmg") -> Path:
        """The folder of one client's images, generated by one of `METHODS`."""
        folder = "synthetic" if method == "fedlmg" else f"synthetic-{method}"
        return self.root / folder / safe_name(client)

    @property
    def forgotten(self) -> Forgotten:
        """The clients that the operator had forgotten; they are not asked again."""
        return Forgotten(self.root / "forgotten.json")

    @property
    def nodes(self) -> dict[int, str]:
        """Flower's node -> name of the client that answered from it; with keys, a client keeps its node."""
        path = self.root / "nodes.json"
        said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {int(node): name for node, name in said.items()}

    def remember_node(self, node: int, client: str) -> None:
        write_json(self.root / "nodes.json", {str(n): name for n, name in (self.nodes | {node: client}).items()})

    @property
    def distillation(self) -> Path:
        """What a distillation needs until the model is there: synthetic images of the student's size, where they are
        many, and the student between epochs."""
        return self.root / "distillation"

    def remove_work(self, client: str) -> None:
        """Remove what was made from one client's upload: images, by every method, what the witness says, and prompts,
        which may be of its classes alone."""
        shutil.rmtree(self.prompts, ignore_errors=True)
        self.finding(client).unlink(missing_ok=True)
        shutil.rmtree(self.distillation, ignore_errors=True)
        for method in METHODS:
            shutil.rmtree(self.synthetic(client, method), ignore_errors=True)

    @property
    def general(self) -> Path:
        """What the run knows without its clients: `class_names.json`, general models, replay images."""
        return self.root / "general"

    @property
    def fixed_class_names(self) -> list[str]:
        """The classes of the run, as the server fixed them before any client trained; empty where it did not."""
        path = self.general / "class_names.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def fix_class_names(self, class_names: list[str]) -> None:
        write_json(self.general / "class_names.json", class_names)

    @property
    def class_notes(self) -> ClassNotes:
        """Which class names the diffusion model knows, and which ones of clients are left out."""
        return ClassNotes(self.root)

    @property
    def witness(self) -> Path:
        """What the witness says, a JSON file for each client."""
        return self.root / "witness"

    def finding(self, client: str) -> Path:
        """The file of what the witness says of one client."""
        return self.witness / f"{safe_name(client)}.json"

    @property
    def model(self) -> Path:
        return self.root / "model"

    def remove_model(self) -> None:
        """Remove the model and the report of it."""
        for folder in (self.model, self.report, self.distillation):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    def log(self, event: RunEvent) -> None:
        """Append one event."""
        append_event(self.events, event)

    def read_events(self) -> Iterator[RunEvent]:
        return follow_events(self.events).read_new()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageWork]:
        """Log a stage's start and its end, with its seconds and what the block notes in the object that it is given,
        also where an error ends it."""
        self.log(StageStarted(name=name))
        started, work = time.monotonic(), StageWork()
        try:
            yield work
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.log(StageFinished(name=name, seconds=seconds, images=work.images))

    def stage_seconds(self) -> dict[str, float]:
        """Seconds of each finished stage, added up over all runs of this workspace."""
        totals: dict[str, float] = {}
        for event in self.read_events():
            if isinstance(event, StageFinished):
                totals[event.name] = totals.get(event.name, 0) + event.seconds
        return totals

    def stage_images(self) -> Counter[str]:
        """Images that each finished stage generated, added up over all runs of this workspace."""
        totals: Counter[str] = Counter()
        for event in self.read_events():
            if isinstance(event, StageFinished):
                totals[event.name] += event.images
        return totals

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace alone.

        Raises
        ------
        ConfigError: another run holds it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.root / ".lock", timeout=0).acquire()
        except Timeout:
            raise ConfigError(f"another run is using workspace {self.root}: wait for it, or name another") from None
        except OSError as error:
            raise ConfigError(f"workspace {self.root} cannot be written: {error.strerror}") from None
        with held:
            yield
