"""Floor 1: the one hook between the host and its plugins, and the version of what they say to each other."""

import pluggy

API_VERSION = 1

hookspec = pluggy.HookspecMarker("inrbridge")
hookimpl = pluggy.HookimplMarker("inrbridge")


@hookspec
def inrbridge_formats():
    """Return the list of `Format` objects that this plugin brings."""
