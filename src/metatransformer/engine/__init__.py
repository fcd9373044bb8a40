"""Floor 5: recipes, the data loader, the one training loop, evaluation, prediction, embedding."""
