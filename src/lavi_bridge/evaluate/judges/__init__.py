"""Judges judged: asked about pictures of the shapes world, whose truth is known."""
