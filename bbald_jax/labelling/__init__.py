"""People who label: a `session` keeps what is asked, answered and still out.

`validation` checks what they hand in.
"""
