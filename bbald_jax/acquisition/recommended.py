"""What the evidence recommends, by name (`docs/choosing.md`). It loads nothing: `bbald --help`."""

#: With the logistic head, from no label on: what `bbald run` and `bbald label` take for it.
FOR_THE_HEAD = "weighted-epig-closed"
