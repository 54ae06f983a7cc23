"""Property tests run on busy machines: how long one example takes says nothing there."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("dojang", deadline=None)
settings.load_profile("dojang")
