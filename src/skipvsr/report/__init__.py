"""Tables, figures and comparisons; the only package that imports matplotlib."""
