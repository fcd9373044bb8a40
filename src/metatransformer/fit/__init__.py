"""From records and a recipe to a trained, scored model."""
