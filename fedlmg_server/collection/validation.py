"""Validate the uploads in the workspace; rejected uploads move to quarantine with a reason, and the run continues."""

from pathlib import Path

from common.config import Config
from common.manifest import ManifestError
from common.upload import Upload, is_whole
from fedlmg_server.collection.settling import settle_classes
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from fedlmg_server.quarantine import find_charge, quarantine, read_rejections
from fedlmg_server.run import Run


def validate_uploads(run: Run) -> dict[str, str]:
    """Move every invalid upload to quarantine, so that `Run.uploads` has the valid ones; returns `read_rejections`."""
    for folder in sorted(filter(is_whole, run.workspace.uploads.glob("*"))):
        if reason := find_charge(run.workspace, folder.name):
            quarantine(run.workspace, folder.name, reason, is_final=True)
            continue
        try:
            check_upload(load_upload(folder, run.config), run.config)
        except UploadError as error:
            quarantine(run.workspace, folder.name, str(error))
    settle_classes(run)
    run.reread_uploads()
    return read_rejections(run.workspace)


def load_upload(folder: Path, config: Config) -> Upload:
    """Read an upload.

    Raises
    ------
    UploadError: the upload cannot be read, or is larger than `max-upload-megabytes`; the message names the client.
    """
    most = config.clients.max_upload_megabytes
    try:
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        if size > most:
            raise UploadError(
                f"client '{folder.name}': the upload has {size:.1f} MB, but 'max-upload-megabytes' allows {most:g}: "
                "raise that key, or let the client choose a smaller architecture"
            )
        return Upload.load(folder, config.builders)
    except UploadError:
        raise
    except ManifestError as error:
        raise UploadError(f"client '{error.client or folder.name}': {error}") from None
    except (ValueError, OSError) as error:
        raise UploadError(f"client '{folder.name}': the upload cannot be read ({error})") from None
