"""The product's own examples, under the name the tests know."""

from training.examples import EXAMPLES, ExampleContract, open_recipe, texts

__all__ = ["EXAMPLES", "ExampleContract", "open_recipe", "texts"]
