"""Tables and figures; the only room that imports matplotlib."""
