"""Class names: one spelling for each class, and maps from one label space to another."""

from common.labels.names import check_distinct, class_key, fold_name, in_one_spelling, parse_aliases, union_of_names

__all__ = ["check_distinct", "class_key", "fold_name", "in_one_spelling", "parse_aliases", "union_of_names"]
