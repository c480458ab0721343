"""What a client says before it sends anything."""

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedlmg_client.client_app import _check_size

RECORDS = RecordDict({"arrays": ArrayRecord({"weight": torch.zeros(50_000)}), "manifest": ConfigRecord({"json": "{}"})})


def test_an_upload_above_the_servers_cap_is_one_sentence():
    with pytest.raises(ValueError, match=r"its upload has 0.2 MB, but the server takes at most 0.1 MB"):
        _check_size(RECORDS, 0.1)


def test_an_upload_below_the_cap_is_sent():
    _check_size(RECORDS, 0.3)
