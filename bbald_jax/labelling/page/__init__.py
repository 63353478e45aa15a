"""The page on which people label, and what it serves: `bbald label`.

`items` says what DATA is, `pictures` makes bytes of images; `learning` refits the head and plans
what to ask, in a thread; `desk` hands items out and takes answers; `notes` follows what the page
itself writes into the session; `overview` is the second tab; `server` and `security` are the
web application; `results` is the export.
"""
