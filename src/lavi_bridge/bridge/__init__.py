"""The bridge: two frozen models and the adapter between them."""

import gc

_collects = gc.isenabled()
gc.disable()  # of the million things that the packages below make, nothing is garbage yet
try:
    from lavi_bridge.bridge.bridge import Bridge
finally:
    if _collects:
        gc.enable()

__all__ = ["Bridge"]
