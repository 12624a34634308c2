"""The shapes world: scenes, their grammar, captions, and an exact scorer."""
