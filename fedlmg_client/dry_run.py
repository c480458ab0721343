"""`fedlmg-client join --dry-run`: show what a client would send, to the byte, without sending it."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.clients.node_config import NodeConfig, read_node_config
from common.config import Config
from common.upload import sizes
from fedlmg_client.uploading import make_upload


def show_upload(node_config: NodeConfig, config: Config, console: Console) -> int:
    """Train as a real run would, then print every part of the upload with its size, and the text of the manifest.

    Returns the total number of bytes. The trained classifier is kept: joining with the same settings sends this upload.

    Raises
    ------
    ValueError: the client's data or settings cannot be used.
    """
    records = make_upload(node_config, config).to_records()
    parts = sizes(records)
    table = Table("part", "type", "shape", "bytes", title="What would be sent")
    for record, arrays in records.array_records.items():
        for name, array in arrays.items():
            size = str(parts[f"{record}/{name}"])
            table.add_row(escape(f"{record}/{name}"), array.dtype, "x".join(map(str, array.shape)), size)
    table.add_row("manifest/json", "text", "", str(parts["manifest/json"]))
    console.print(table)
    console.print(escape(str(records["manifest"]["json"])), soft_wrap=True)
    total = sum(parts.values())
    console.print(f"{total} bytes in {len(parts)} parts; nothing was sent")
    own = read_node_config(node_config)
    if config.general.warm_start and own.warm_start and (own.upload or config.training.upload) == "both":
        console.print(
            "With the server's warm start, the upload also holds a copy of the student's architecture, "
            f"'{config.distillation.student_architecture}', if this machine can train both in time: a server sends it"
        )
    return total
