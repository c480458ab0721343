"""Every setting of a run, its default and its bounds."""

from common.config.run import Config, ConfigError

__all__ = ["Config", "ConfigError"]
