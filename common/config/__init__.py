"""Every setting of a run, its default and its bounds."""

from common.config.fields import ConfigError
from common.config.run import Config

__all__ = ["Config", "ConfigError"]
