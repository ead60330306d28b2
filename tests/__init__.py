"""The tests, one folder a folder of the package, plus policy/ (rules of the code) and numerics/ (numerical laws)."""
