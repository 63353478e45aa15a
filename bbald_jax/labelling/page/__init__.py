"""The page on which people label, and what it serves: `bbald label`.

`items` says what DATA is, and `pictures` makes bytes of images; `opening` begins or continues the
session about them, and `sources` keeps in it where they came from. `learning` refits the head and
plans what to ask, in a thread; `handing` is what people get, `desk` what they say; `notes` follows
what the page itself writes into the session (what is drawn to measure the accuracy is in
`audit_log`, beside the session); `overview` is the second view. `actions` are what a page can ask
for: over HTTP (`server`, with its `security`), or from a notebook's cell (`widget`, beside this
folder), with one script and style in `static`. `results` is the export.
"""
