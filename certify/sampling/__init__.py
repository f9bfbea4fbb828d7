"""Drawing votes: the base classifier in batches, the engine that packs them, its spread over machines."""
