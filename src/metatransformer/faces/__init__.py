"""The faces of the package: scikit-learn's manners and the command line."""
