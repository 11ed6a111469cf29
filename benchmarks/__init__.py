"""A regular package, since an installed library (fairscale) has one of the same name."""
