"""`python -m lavi_bridge` is the command `lavi-bridge`."""

from lavi_bridge.cli.main import main

main()
