"""sexton up: many apps from one file, on ports of their own, none ever left behind."""
