"""Running a model: batches, outputs, scores, predictions, embeddings."""
