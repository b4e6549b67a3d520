"""A package, so that the folder `tests` that a dependency installs is not taken for this one."""
