"""The formats in which sets of samples come: each turns a file into records, believing nothing."""
