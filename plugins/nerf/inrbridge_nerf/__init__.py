"""(under construction)"""

from inrbridge import hookimpl


@hookimpl
def inrbridge_formats():
    return []
