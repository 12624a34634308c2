"""The bridge: two frozen models and the adapter between them."""

from lavi_bridge.bridge.bridge import Bridge

__all__ = ["Bridge"]
