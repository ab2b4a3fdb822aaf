"""How fast and how large is a local sum on this machine? Against its peers, in one process, in turns.

Prints nothing unless the tests of the operators pass and every peer that computes the same sum agrees with it here.
A start that is cut off goes on where it was.

    python -m studies.speed
    python -m studies.speed --accelerator cuda --dtype bfloat16
    python -m studies.speed --rounds 8 --sweeps false
"""
