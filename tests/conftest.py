"""Shared fixtures: a tiny BERT made on the spot, so that the fast suite needs no files, no network and little time."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from otfkd.config import Config, load_config
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("OTFKD_DATA", None) if "OTFKD_TEST_DATA" in os.environ else None

WORDS = "a the cat dog bird sat ran flew on over mat road tree red blue big small old new and then slowly quickly home".split()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it skip where there is none."""
    root = os.environ.get("OTFKD_DATA")
    if not root:
        pytest.skip("OTFKD_DATA is not set")
    return Path(root)
