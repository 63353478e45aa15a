"""The command line, `bbald`: nothing that a Python user would miss.

`main` has the commands with their `options`, and loads nothing that takes time. What a command does
is in a file of its own, which is loaded when the command runs, with a `compilation_cache`.
`console` is how they all print and refuse, `prediction_files` how they read what people bring.
"""
