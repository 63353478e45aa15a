"""People who label in Label Studio: what is asked of a session becomes tasks there, in order.

`client` calls the server. `control` makes and checks a project's labelling interface, `tasks` makes
what is imported and reads what people said of it, `answers` says how to bring a session up to that:
all three are pure. `link` keeps in the session which project it belongs to, and `bridge` does one
round after the other. Whatever moment it is ended at: the session and the server together say what
is to be done next, and nothing else is kept.
"""
