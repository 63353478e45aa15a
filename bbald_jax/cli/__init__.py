"""The command line, `bbald`: nothing that a Python user would miss.

A file is a command, and `main` puts them together; `console` is how they all print and refuse,
`prediction_files` how they read what people bring.
"""
