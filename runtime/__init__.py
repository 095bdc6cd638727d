"""Compose stages/ and ipc/ into supervised processes. All policy is here."""
