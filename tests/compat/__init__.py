"""The drop-in personalities against the programs that they stand in for: Debian's tini, dumb-init and catatonit.

Each case runs twice, under the peer and under sexton-init by the peer's name, with the same words, environment and
input; `twins` starts both and makes their output comparable. A deliberate difference stands in a table with its reason,
and is tested to be one.
"""
