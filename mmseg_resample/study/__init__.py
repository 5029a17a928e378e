"""Studies: train the variants of a model under paired seeds, test them, compare them.

``plan`` says what to run, ``execution`` runs it, ``statistics`` and ``report`` say what came out. Importing this
package imports none of them.
"""
