"""The bridge: two frozen models and the adapter between them."""
