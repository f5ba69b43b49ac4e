"""The keys of a training config."""

from otfkd.config.messages import all_keys
from otfkd.config.schema import Config

LEAVES = [key for key in all_keys(Config) if not any(other.startswith(f"{key}.") for other in all_keys(Config))]
