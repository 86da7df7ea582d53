"""Hub models: what recipes say of a model is what the table of published configurations says."""

from potstill.recipe import load_recipe, shipped_recipes
from potstill.rehearsal.hub_models import hub_model


def test_the_facts_of_shipped_recipes_are_the_published_configurations():
    compared = 0
    for recipe in map(load_recipe, shipped_recipes()):
        for name, fields in recipe.facts.models.items():
            published = hub_model(name)
            if published is not None:
                assert fields.items() <= published.config.items(), name
                compared += 1
    assert compared >= 5, "the published experiments name five hub models and more"


def test_a_model_that_no_recipe_names_is_not_there():
    assert hub_model("some/model") is None
