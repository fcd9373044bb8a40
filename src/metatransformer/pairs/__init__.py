"""What learns from pairs: contrastive pretraining of two towers, zero-shot classification, alignment."""
