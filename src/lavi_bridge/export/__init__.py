"""Bridges for other people's software: folders that run without this package."""

from lavi_bridge.export.folder import Exported, export_bridge
from lavi_bridge.export.forms import FORMS, Form

__all__ = ["FORMS", "Exported", "Form", "export_bridge"]
