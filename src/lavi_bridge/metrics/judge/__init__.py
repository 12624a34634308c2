"""Measures by a judge: a model that sees pictures and answers questions about them."""
