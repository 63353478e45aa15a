"""The command line, `bbald`: nothing that a Python user would miss.

`main` puts the commands together; `console` is how they all print and refuse.
"""
