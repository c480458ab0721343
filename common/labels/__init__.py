"""Class names: one spelling for each, and from one label space into another."""

from common.labels.names import check_distinct, fold, in_one_spelling, key, parse_aliases, union

__all__ = ["check_distinct", "fold", "in_one_spelling", "key", "parse_aliases", "union"]
