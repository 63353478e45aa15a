"""People who label: a `session` keeps what is asked, answered and still out.

`validation` checks what they hand in. How good the model is meanwhile: `draws` of points to be
audited, `audit` (the accuracy with its interval) by the bets in `wealth`, and `stopping`.
"""
