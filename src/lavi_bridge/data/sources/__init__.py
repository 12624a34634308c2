"""Where captioned images come from."""
