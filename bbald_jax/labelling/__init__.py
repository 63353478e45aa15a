"""People who label: a session keeps what is asked, answered and still out.

`events` happen; `state` follows from them, in the same `transaction` of the database that `store`
opens. A session reads (`reading`), edits (`editing`), and asks and is told (`session`, with
`asking` for the choice). `validation` checks what people hand in, `export` writes tables, `repair`
reads what is left of a damaged file (`pages`), and `version_1` files of the first version.

How good the model is meanwhile: `draws` of points to be audited, `audit` (the accuracy with its
interval) by the bets in `wealth`, and `stopping`; `session_audit` keeps all of it in a session, as
the events of `audit_log`. People label on the `page`, in Label Studio (`label_studio`), or in a
notebook's cell (`widget`).
"""
