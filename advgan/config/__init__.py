"""Configuration: typed settings, read from YAML; what users import stands here."""

from advgan.config.loading import dump_config, find_config, load_config, parse_config
from advgan.config.settings import AttackSettings, Config, DataSettings

__all__ = ["AttackSettings", "Config", "DataSettings", "dump_config", "find_config", "load_config", "parse_config"]
