"""Class names: one spelling for each, and from one label space into another."""

from common.labels.names import check_distinct, class_key, fold_name, in_one_spelling, parse_aliases, union_of_names

__all__ = ["check_distinct", "class_key", "fold_name", "in_one_spelling", "parse_aliases", "union_of_names"]
