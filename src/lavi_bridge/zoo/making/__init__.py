"""How the bundled models were made: every one from nothing, by scripts that can be stopped."""
