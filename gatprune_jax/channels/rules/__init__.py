"""Rules for how channel labels pass through each operation of a jaxpr."""
