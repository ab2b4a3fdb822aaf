"""Cards of operators: the family as a table, and for one layer a text and a picture that explain it."""

from dynops.cards.card import Card, card
from dynops.cards.docs import Docs, read
from dynops.cards.family import Row, family, markdown, rows, table
from dynops.cards.find import Found, find

__all__ = ["Card", "Docs", "Found", "Row", "card", "family", "find", "markdown", "read", "rows", "table"]
