"""Studies: train the variants of a model under paired seeds, test them, compare them.

``loading`` reads what to run into a ``plan``, ``execution`` runs it, ``paired`` and ``report`` say what came out.
Importing this package imports none of them.
"""
