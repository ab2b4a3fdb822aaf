"""Cards: the family as a table, and for one layer or one network a text and a picture that explain it."""

from dynops.cards.card import Card, card
from dynops.cards.docs import Docs, read
from dynops.cards.family import Row, family, markdown, rows, table
from dynops.cards.find import Found, find
from dynops.cards.network import NetworkCard, network_card

__all__ = [
    "Card",
    "Docs",
    "Found",
    "NetworkCard",
    "Row",
    "card",
    "family",
    "find",
    "markdown",
    "network_card",
    "read",
    "rows",
    "table",
]
