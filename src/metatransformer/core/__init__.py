"""Floor 0: fields, samples, tokens, modality, errors."""
