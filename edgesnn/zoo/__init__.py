"""Small trained networks that come with the package: `zoo:<name>` wherever a model is named."""

from edgesnn.zoo.card import Card, cards, model_path

__all__ = ["Card", "cards", "model_path"]
