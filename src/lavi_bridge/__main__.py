"""`python -m lavi_bridge` is the command `lavi-bridge`."""

from lavi_bridge.cli import main

main()
